// A histogram whose counts are kept elsewhere. prom-client's own counts single observations; here whole histograms come
// from the native side, which has counted them all along. So this is a metric of prom-client with values of its own.
import { Gauge, type GaugeConfiguration, type MetricObjectWithValues, type MetricValueWithName } from 'prom-client'

/** How often each whole number from 0 on was seen; the last entry may mean "or more". */
export interface Counts {
  counts: readonly number[]
  sum: number
}

type Values = MetricObjectWithValues<MetricValueWithName<string>>

export class CountedHistogram extends Gauge {
  private seen: Counts = { counts: [], sum: 0 }

  constructor(private readonly bounds: readonly number[], configuration: GaugeConfiguration<string>) {
    super(configuration)
  }

  setCounts(seen: Counts): void {
    this.seen = seen
  }

  override async get(): Promise<Values> {
    const metric = await super.get()
    const { counts, sum } = this.seen
    const within = (bound: number) => counts.reduce((total, count, i) => (i <= bound ? total + count : total), 0)
    const line = (suffix: string, value: number, labels = {}) =>
      ({ metricName: `${metric.name}_${suffix}`, labels, value })
    const buckets = this.bounds.map((bound) => line('bucket', within(bound), { le: bound }))
    const all = within(Infinity)
    return {
      ...metric,
      type: 'histogram' as unknown as Values['type'],  // an enum of numbers in prom-client's types, texts in its code
      values: [...buckets, line('bucket', all, { le: '+Inf' }), line('sum', sum), line('count', all)],
    }
  }
}
