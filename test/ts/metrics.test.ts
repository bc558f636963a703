// The Prometheus endpoint, as a scraper sees it.
import { createServer } from 'node:http'
import { once } from 'node:events'
import { mkdtempSync, existsSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Trainer, runTraining, type ConfigInput } from 'persia'
import t from 'tap'
import { quietPort } from './ports.js'
import { batches, drained, smallConfig } from './training-fixtures.js'

const port = quietPort()
const url = `http://127.0.0.1:${port}/metrics`
const config: ConfigInput = { ...smallConfig, metrics: { port } }

/** The samples of a scrape: value by name with labels. */
async function scrape(): Promise<Map<string, number>> {
  const response = await fetch(url)
  t.match(response.headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
  const lines = (await response.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(lines.map((line) => {
    const at = line.lastIndexOf(' ')
    return [line.slice(0, at), Number(line.slice(at + 1))]
  }))
}

t.test('staleness is a gauge within its bound and a histogram of all lookups, and is 0 at the end', async (t) => {
  await using trainer = await Trainer.create({ ...config, deterministic: true, lookahead: 3, cluster: { nnWorkers: 2 } })
  const during: number[] = []
  await drained(trainer.fit(batches(80), { onStep: async () => { during.push((await scrape()).get('persia_staleness')!) } }))
  t.ok(during.length > 0 && during.every((value) => value >= 0 && value <= 3), during.join(' '))
  const now = await scrape()
  t.equal(now.get('persia_staleness'), 0)
  t.equal(now.get('persia_staleness_bound'), 3)
  const { lookups, rows, stages } = trainer.pipeline()
  const bucket = (bound: string | number) => now.get(`persia_lookup_staleness_bucket{le="${bound}"}`)
  t.equal(bucket(0), lookups[0])
  t.equal(bucket(2), lookups[0]! + lookups[1]! + lookups[2]!)
  t.equal(bucket(3), 160, 'a lookup a step and worker, none beyond the bound')
  t.equal(bucket('+Inf'), 160)
  t.equal(now.get('persia_lookup_staleness_count'), 160)
  t.equal(now.get('persia_lookup_staleness_sum'), lookups.reduce((sum, count, behind) => sum + count * behind, 0))
  t.ok(rows.count > 0)
  t.equal(now.get('persia_row_staleness_count'), rows.count)
  t.equal(now.get('persia_row_staleness_sum'), rows.sum)
  t.equal(now.get('persia_steps_total'), 80)
  t.equal(now.get('persia_samples_total'), 80 * 64)
  t.equal(now.get('persia_stage_steps_total{stage="train",worker="1"}'), 80)
  const busy = stages.find(({ stage, worker }) => stage === 'train' && worker === 1)!.busy
  t.equal(now.get('persia_stage_seconds_total{stage="train",worker="1",state="busy"}'), busy)
  t.equal(now.get('persia_table_rows{features="user"}'), 50)
})

t.test('the last evaluation is exported, without metrics that do not exist', async (t) => {
  await using trainer = await Trainer.create(config)
  await drained(trainer.fit(batches(5)))
  const metrics = { half: () => 0.5, none: () => Number.NaN }
  const { auc } = await trainer.evaluate(batches(3, 100), { split: 'valid', metrics })
  const now = await scrape()
  t.equal(now.get('persia_evaluation{split="valid",metric="auc",label="click"}'), auc['click'])
  t.equal(now.get('persia_evaluation{split="valid",metric="half",label=""}'), 0.5)
  t.notOk(now.has('persia_evaluation{split="valid",metric="none",label=""}'))
})

t.test('nothing but the metrics is answered, and nothing once the trainer is closed', async (t) => {
  const trainer = await Trainer.create(config)
  t.equal((await fetch(url.replace('/metrics', '/'))).status, 404)
  t.equal((await fetch(url, { method: 'POST' })).status, 405)
  await trainer.close()
  await trainer.close()
  await t.rejects(fetch(url))
})

t.test('a port that is taken ends the run before anything is trained or written', async (t) => {
  const run = mkdtempSync(join(tmpdir(), 'persia-metrics-'))
  t.teardown(() => rmSync(run, { recursive: true, force: true }))
  const other = createServer().listen(port, '127.0.0.1')
  await once(other, 'listening')
  const dir = join(run, 'checkpoints')
  const events = runTraining({ ...config, checkpoint: { dir } }, { datasets: { train: () => batches(3) } })
  await t.rejects(events.next(), {
    code: 'PERSIA_IO', details: { path: 'metrics.port', port }, message: new RegExp(`metrics.port: .*127.0.0.1:${port}`),
  })
  other.close()
  await once(other, 'close')
  t.notOk(existsSync(join(dir, 'latest')))
  await using trainer = await Trainer.create(config)
  t.equal(trainer.steps, 0, 'and once it is free it can be had')
})
