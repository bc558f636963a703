// The rows of a relation, chunk by chunk, for the batcher: DuckDB's vectors as they lie in memory, or runs of rows of
// an Arrow file, which the addon reads when they are pushed.
import type { DuckDBConnection } from '@duckdb/node-api'
import { native, settling } from '../native.js'
import { nativeChunk } from './chunk.js'
import type { NativeArrowFile } from './native-arrow.js'
import type { NativeBatcher, NativeBatcherOutput } from './native-batcher.js'
import type { QueryItem, Relation } from './relation.js'
import { arrowLayout, selectColumns, type WantedColumns } from './select.js'

export interface Chunk {
  rows: number
  push(batcher: NativeBatcher): Promise<NativeBatcherOutput>
}

/** What opens the chunks of a relation; `next` of them gives null at the end. */
export type OpenChunks = (connection: DuckDBConnection) => Promise<{ next(): Promise<Chunk | null> }>

/**
 * Finds the columns, PERSIA_DATA_MISSING_COLUMN or PERSIA_DATA_UNREADABLE. With `reject`, DuckDB leaves out rows that
 * it cannot split.
 */
export function chunksOf(relation: Relation, wanted: WantedColumns, reject: boolean): OpenChunks {
  const { reads } = relation
  return typeof reads === 'function' ? queryChunks(relation, reads, wanted, reject)
    : arrowChunks(relation, reads, wanted)
}

function queryChunks(relation: Relation, item: QueryItem, wanted: WantedColumns, reject: boolean): OpenChunks {
  const query = selectColumns(relation, wanted, item(reject))
  return async (connection) => {
    const result = await connection.stream(query)
    return {
      async next() {
        const chunk = await result.fetchChunk()
        if (!chunk || chunk.rowCount === 0) return null
        return { rows: chunk.rowCount, push: (batcher) => batcher.push(nativeChunk(chunk, wanted)) }
      },
    }
  }
}

const arrowChunkRows = 2048

function arrowChunks(relation: Relation, file: NativeArrowFile, wanted: WantedColumns): OpenChunks {
  const layout = arrowLayout(relation, wanted)
  return async () => {
    const reader = new (native().ArrowRows)(file, layout)
    let first = 0
    return {
      async next() {
        const begin = first
        const rows = Math.min(arrowChunkRows, file.rows - begin)
        first += rows
        return rows === 0 ? null : { rows, push: (batcher) => settling(() => batcher.pushArrow(reader, begin, rows)) }
      },
    }
  }
}
