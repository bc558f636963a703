// What the pipeline did with its time, for people: how stale lookups and rows were, and a line a stage.
import type { DoneReport } from '../train/reports.js'
import { aligned } from './columns.js'

const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const milliseconds = (seconds: number) => `${(1000 * seconds).toFixed(2)} ms`
const number = (value: number) => value.toFixed(2)

export function pipelineText({ staleness, pipeline }: Pick<DoneReport, 'staleness' | 'pipeline'>): string {
  const { most, mean, rows, dense } = staleness
  const denseText = dense ? `; dense weights: ${number(dense.mean)} updates by others, ${dense.most} at most` : ''
  const head = `staleness: ${number(mean)} batches, ${most} at most; `
    + `rows (${rows.samples} sampled): ${number(rows.mean)} updates by others, ${rows.most} at most${denseText}`
  const lines = pipeline.map(({ stage, worker, secondsPerStep, busy, held, idle, queue }) => [
    `${stage} ${worker}`, milliseconds(secondsPerStep), percent(busy), percent(held), percent(idle),
    `${number(queue.mean)} (${queue.most})`,
  ])
  return [head, ...aligned([['stage', 'a step', 'busy', 'held', 'idle', 'queue (most)'], ...lines])].join('\n')
}
