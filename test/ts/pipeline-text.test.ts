// The summary of the pipeline at the end of a run.
import t from 'tap'
import { pipelineText } from '#persia/cli/pipeline-text.js'
import { PipelineMeter } from '#persia/train/pipeline-report.js'

const stage = (seconds: number, steps: number) => ({
  stage: 'train' as const, worker: 1, idle: seconds, held: seconds, busy: 2 * seconds, steps, queued: 2 * steps, mostQueued: 5,
})
const none = { count: 0, sum: 0, most: 0 }

t.test('stages are measured between start and stop only, which come in turns', async (t) => {
  let stages = [stage(1, 10)]
  const meter = new PipelineMeter(() => ({ stages, lookups: [1, 0, 3, 0], rows: { count: 4, sum: 6, most: 3 }, rowHistogram: [0, 3, 0, 1, 0], dense: none }))
  for (const [from, to] of [[1, 3], [7, 9]] as const) {
    stages = [stage(from, 10 * from)]
    meter.start()
    stages = [stage(to, 10 * to)]
    meter.stop()
  }
  const report = meter.report()
  t.same(report.pipeline, [{
    stage: 'train', worker: 1, steps: 40, secondsPerStep: 0.2, busy: 0.5, held: 0.25, idle: 0.25, queue: { mean: 2, most: 5 },
  }])
  t.same(report.staleness, {
    mean: 1.5, most: 2, histogram: [1, 0, 3, 0], rows: { samples: 4, mean: 1.5, most: 3, histogram: [0, 3, 0, 1] },
  })
  t.same(pipelineText(report).split('\n'), [
    'staleness: 1.50 batches, 2 at most; rows (4 sampled): 1.50 updates by others, 3 at most',
    'stage       a step    busy    held    idle  queue (most)',
    'train 1  200.00 ms  50.0 %  25.0 %  25.0 %      2.00 (5)',
  ])
})

t.test('a run without a step divides by nothing, and async tells of its dense weights', async (t) => {
  const meter = new PipelineMeter(() => ({ stages: [], lookups: [0, 0], rows: none, rowHistogram: [0], dense: { count: 4, sum: 2, most: 1 } }))
  t.same(meter.report(), {
    staleness: { mean: 0, most: 0, histogram: [0, 0], rows: { samples: 0, mean: 0, most: 0, histogram: [] }, dense: { mean: 0.5, most: 1 } },
    pipeline: [],
  })
  t.match(pipelineText(meter.report()), /dense weights: 0\.50 updates by others, 1 at most/)
})
