// How clusters end: interrupted, by a role that dies, without their launcher; and who is not let in.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { quietPort } from '../ts/ports.js'
import { folder } from '../ts/folders.js'
import { Running, adult, leftAfter, persia, sleep, small, twoOfEach } from './cluster-fixtures.js'

t.setTimeout(600_000)

/** Long enough that it is not over before the test has done what it does. */
const long = { ...twoOfEach, epochs: 400 }

t.test('Ctrl-C ends all roles with a complete checkpoint and 130, and train and launch go on from it', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const launched = new Running(t, ['launch', ...small(run, long), '--json', '--report-every', '0.1'])
  await launched.until(/"progress"/, 'stdout')
  const pids = launched.pids()
  t.equal(pids.size, 7)
  launched.kill('SIGINT')
  const { status, events, stderr } = await launched.exited
  t.equal(status, 130, stderr)
  t.same(await leftAfter(pids, 0), [], 'every role has ended before')
  const last = events.at(-1)!
  t.match(last, { event: 'interrupted' })
  const step = Number(readFileSync(join(run, 'latest'), 'utf8'))
  t.equal(last['checkpoint'], join(run, String(step)))

  const epochs = Math.floor(step / 32) + 1
  for (const [command, more] of [['launch', { ...twoOfEach, epochs }], ['train', { epochs: epochs + 1 }]] as const) {
    const resumed = persia([command, ...small(run, more), '--json', '--resume'])
    t.match(resumed.events.at(-1), { event: 'done', steps: more.epochs * 32 }, resumed.stderr)
  }
})

t.test('a role that dies is named with its last lines, and everything stops', async (t) => {
  for (const victim of ['parameter-server 1', 'embedding-worker 0', 'nn-worker 1', 'data-loader 0', 'data-loader 1']) {
    const run = join(folder(t), 'checkpoints')
    const launched = new Running(t, ['launch', ...small(run, { ...long, 'cluster.dataLoaders': 2 }), '--json', '--report-every', '0.1'])
    await launched.until(/"progress"/, 'stdout')
    const pids = launched.pids()
    process.kill(pids.get(victim)!, 'SIGKILL')
    const { status, stderr } = await launched.exited
    t.equal(status, 1, stderr)
    const ending = stderr.slice(stderr.lastIndexOf('PERSIA_PEER_LOST'))
    t.match(ending, new RegExp(`^PERSIA_PEER_LOST: ${victim} \\(process ${pids.get(victim)}\\) was killed by SIGKILL; its last lines:\\n  \\S`))
    t.same(await leftAfter(pids, 0), [], 'nothing is left')
  }
})

t.test('a role that hangs is named after cluster.peerTimeoutSeconds, and ends with the others', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const launched = new Running(t, ['launch', ...small(run, { ...long, 'cluster.peerTimeoutSeconds': 3 }), '--json', '--report-every', '0.1'])
  await launched.until(/"progress"/, 'stdout')
  const pids = launched.pids()
  const pid = pids.get('embedding-worker 1')!
  process.kill(pid, 'SIGSTOP')
  const { status, stderr } = await launched.exited
  t.equal(status, 1, stderr)
  t.match(stderr, new RegExp(`PERSIA_PEER_LOST: .*embedding-worker 1`))
  t.same(await leftAfter(pids, 0), [])
})

t.test('nothing outlives a launcher that is killed', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const launched = new Running(t, ['launch', ...small(run, long), '--json', '--report-every', '0.1'])
  await launched.until(/"progress"/, 'stdout')
  const pids = launched.pids()
  launched.kill('SIGKILL')
  t.same(await leftAfter(pids, 5), [])
})

t.test('a second Ctrl-C ends everything at once', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const launched = new Running(t, ['launch', ...small(run, long), '--json', '--report-every', '0.1'])
  await launched.until(/"progress"/, 'stdout')
  const pids = launched.pids()
  launched.kill('SIGINT')
  await launched.until(/once more to stop at once/)
  launched.kill('SIGINT')
  t.equal((await launched.exited).status, 130)
  t.same(await leftAfter(pids, 5), [])
})

t.test('what is wrong with the data ends a cluster as it ends one process', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const failed = persia(['launch', ...small(run, { ...twoOfEach, 'data.train.path': 'none.csv' }), '--json'])
  t.match(failed, { status: 2, stdout: '', stderr: /PERSIA_DATA_NOT_FOUND: data-loader 0: .*none\.csv/ })
  t.notOk(existsSync(run), 'nothing was written')
})

t.test('a bad row that a data loader finds ends a cluster with its place, whichever loader it is', async (t) => {
  const directory = folder(t)
  const lines = gunzipSync(readFileSync(join(adult, '..', 'train.csv.gz'))).toString().split('\n')
  const data = join(directory, 'train.csv')
  writeFileSync(data, [...lines.slice(0, 9000), lines[9000]!.replace(/^\d+/, 'old'), ...lines.slice(9001)].join('\n'))
  const failed = persia(['launch', ...small(join(directory, 'checkpoints'), {
    ...twoOfEach, 'cluster.dataLoaders': 2, 'data.train.path': data,
  }), '--json'])
  t.match(failed, { status: 2, stderr: /PERSIA_DATA_BAD_ROW: data-loader [01]: .*train\.csv line 9001, column age/ })
})

t.test('Ctrl-C with several data loaders ends them all with a complete checkpoint, which one goes on from', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const launched = new Running(t, ['launch', ...small(run, { ...long, 'cluster.dataLoaders': 3 }), '--json', '--report-every', '0.1'])
  await launched.until(/"progress"/, 'stdout')
  const pids = launched.pids()
  launched.kill('SIGINT')
  const { status, events, stderr } = await launched.exited
  t.equal(status, 130, stderr)
  t.same(await leftAfter(pids, 0), [], 'every role has ended before')
  t.match(events.at(-1), { event: 'interrupted' })
  const epochs = Math.floor(Number(readFileSync(join(run, 'latest'), 'utf8')) / 32) + 1
  const resumed = persia(['launch', ...small(run, { ...twoOfEach, epochs }), '--json', '--resume'])
  t.match(resumed.events.at(-1), { event: 'done', steps: epochs * 32 }, resumed.stderr)
})

t.test('roles that are started one by one, in any order, make a cluster that takes commands', async (t) => {
  const directory = folder(t)
  const token = join(directory, 'token')
  writeFileSync(token, '0123456789abcdef0123456789abcdef\n')
  const config = small(join(directory, 'checkpoints'), {
    epochs: 400, 'cluster.parameterServers': 2, 'cluster.nnWorkers': 1, batchSize: 1024, 'cluster.auth.tokenFile': token,
  })
  const port = quietPort()
  const coordinator = ['--coordinator', `127.0.0.1:${port}`]
  const role = (name: string, ...more: string[]) => new Running(t, [name, ...coordinator, '--token-file', token, ...more])
  const early = [role('nn-worker'), role('parameter-server', ...config), role('data-loader', '--json')]
  await sleep(500)
  const central = new Running(t, ['coordinator', ...config, '--set', `cluster.port=${port}`, '--json', '--report-every', '0.1'])
  const late = [role('parameter-server'), role('embedding-worker')]
  await central.until(/"progress"/, 'stdout')

  const ask = (command: string, ...more: string[]) => persia(['cluster', command, ...coordinator, '--json', ...more])
  t.match(ask('status'), { status: 2, stderr: /PERSIA_CLUSTER_REFUSED: the token is missing or wrong/ })
  const status = ask('status', '--token-file', token)
  t.match(status.events[0], { event: 'status', phase: 'running', missing: [] }, status.stderr)
  t.equal((status.events[0]!['members'] as unknown[]).length, 5)
  const saved = ask('checkpoint', '--token-file', token).events[0]!
  t.ok(existsSync(join(saved['checkpoint'] as string, 'manifest.json')), JSON.stringify(saved))
  t.equal(ask('stop', '--token-file', token).status, 0)
  const { status: code, events, stderr } = await central.exited
  t.equal(code, 130, stderr)
  t.match(events.at(-1), { event: 'interrupted' })
  const ends = await Promise.all([...early, ...late].map(({ exited }) => exited))
  t.same(ends.map((end) => end.status), [0, 0, 130, 0, 0], ends.map((end) => end.stderr).join('\n'))
  t.match(ends[2]!.events.at(-1), { event: 'interrupted' }, 'the data loader reports too')
})

t.test('who is not let in ends with the reason and 2', async (t) => {
  const directory = folder(t)
  const run = join(directory, 'checkpoints')
  const environment = { CLUSTER_TEST_TOKEN: '0123456789abcdef' }
  const central = new Running(t, ['coordinator', ...small(run), '--set', 'cluster.auth.tokenEnv=CLUSTER_TEST_TOKEN'], environment)
  const [, address] = await central.until(/listens on (\S+);/)
  const role = (args: string[], token: string) =>
    persia(['nn-worker', '--coordinator', address!, ...args], { PERSIA_CLUSTER_TOKEN: token })
  t.match(role([], '0123456789abcdeX'), { status: 2, stderr: /PERSIA_CLUSTER_REFUSED: the token is missing or wrong/ })
  t.match(role(['--config', adult, '--set', 'seed=8'], '0123456789abcdef'),
    { status: 2, stderr: /PERSIA_CLUSTER_REFUSED: the config of this nn-worker is another one/ })
  t.match(role(['--rank', '7'], '0123456789abcdef'), { status: 2, stderr: /PERSIA_CLUSTER_REFUSED: there is no nn-worker 7/ })
  t.match(persia(['nn-worker', '--coordinator', address!, '--listen', '0.0.0.0'], { PERSIA_CLUSTER_TOKEN: '' }),
    { status: 2, stderr: /PERSIA_CLUSTER_REFUSED: 0\.0\.0\.0 can be reached from other machines/ })
  t.match(persia(['nn-worker', '--coordinator', 'nowhere']), { status: 2, stderr: /PERSIA_USAGE: --coordinator takes HOST:PORT/ })
  central.kill('SIGINT')
  t.equal((await central.exited).status, 130, 'nobody had joined, so it ends at once')
})
