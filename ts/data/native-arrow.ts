// The shape of Arrow files in the addon (bindings/arrow_binding.cc). Internal.

export interface NativeArrowFile {
  readonly rows: number
  /** Types in the words of DuckDB, such as VARCHAR or BIGINT[]. */
  readonly columns: { name: string; type: string }[]
}

/** A column by its place, and what its values are read as. */
export interface NativeArrowColumn { column: number; kind: 'text' | 'number' | 'integer' }

export interface NativeArrowLayout {
  ids: NativeArrowColumn[]
  dense: NativeArrowColumn[]
  labels: NativeArrowColumn[]
  split?: NativeArrowColumn
}

/** Reads rows of a file for a batcher or a part, one call at a time. */
export interface NativeArrowRows { readonly rows?: never }

export interface NativeArrow {
  /** `name` is that in messages. */
  openArrow(path: string, name: string): Promise<NativeArrowFile>
  ArrowRows: new (file: NativeArrowFile, layout: NativeArrowLayout) => NativeArrowRows
}
