// The control plane over real connections, without the native roles: who is let in, in which order things happen, and how
// a cluster ends.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { protoPath } from 'grpc-health-check'
import { type ConfigInput, type LoadedConfig } from 'persia'
import t, { type Test } from 'tap'
import { parseConfig } from '#persia/config/index.js'
import { parseAddress } from '#persia/control/address.js'
import { readCredentials, type Credentials } from '#persia/control/auth.js'
import { CoordinatorClient } from '#persia/control/commands.js'
import { Membership, type JoinOptions } from '#persia/control/membership.js'
import type { Role } from '#persia/control/roles.js'
import { PersiaError } from '#persia/errors.js'
import { openCoordinator, type Coordinator } from '#persia/roles/coordinator.js'
import type { RunEvent } from '#persia/train/run-events.js'
import { quietPort } from './ports.js'
import { smallConfig } from './training-fixtures.js'

t.setTimeout(180_000)

const nobody: Credentials = { token: undefined, tls: undefined }
const token = 'a token of more than sixteen characters'

type ClusterInput = NonNullable<ConfigInput['cluster']>

function loadedOf(cluster: ClusterInput): LoadedConfig {
  const config = parseConfig({ ...smallConfig, cluster: { joinTimeoutSeconds: 20, ...cluster } })
  return { config, file: '', baseDir: '/data', sources: new Map() }
}

async function open(t: Test, cluster: ClusterInput = {}, credentials = nobody,
  onEvent: (event: RunEvent) => void = () => {}): Promise<Coordinator> {
  const coordinator = await openCoordinator({
    loaded: loadedOf(cluster), credentials, resume: undefined, reportEverySeconds: 1, log: () => {}, onEvent,
  })
  t.teardown(() => coordinator.close())
  return coordinator
}

/** A role without any work: it notes its commands. */
function attend(t: Test, { address }: { address: string }, role: Role, more: Partial<JoinOptions> = {}) {
  const commands: string[] = []
  const membership = new Membership({
    coordinator: parseAddress(address, 'test'), credentials: nobody, role, rank: undefined, configHash: '',
    listensOn: '127.0.0.1', joinTimeoutSeconds: 5, onCommand: ({ what }) => commands.push(what), ...more,
  })
  t.teardown(() => membership.close())
  return { membership, commands, role }
}

type Attending = ReturnType<typeof attend>

const everyRole: Role[] = ['parameter-server', 'embedding-worker', 'nn-worker', 'data-loader']

async function untilBegun({ membership, role }: Attending): Promise<void> {
  await membership.welcome
  membership.listening(`at ${role}`)
  await membership.roster
  membership.ready()
  await membership.begun
}

/** All roles of a cluster of one each, up to the begin. */
async function running(t: Test, coordinator: Coordinator): Promise<Record<Role, Attending>> {
  const all = everyRole.map((role) => attend(t, coordinator, role))
  await Promise.all(all.map(untilBegun))
  return Object.fromEntries(all.map((one) => [one.role, one])) as Record<Role, Attending>
}

const until = async (condition: () => boolean, what: string) => {
  for (let tries = 0; tries < 500; tries++) {
    if (condition()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error(`not so within 5 s: ${what}`)
}

const done = { outcome: 'done', code: '', message: '' } as const

t.test('roles join in any order, get ranks, the config and one secret, and begin when all are ready', async (t) => {
  const coordinator = await open(t, { parameterServers: 2 })
  const order: [Role, number?][] = [['nn-worker'], ['parameter-server', 1], ['data-loader'], ['parameter-server'], ['embedding-worker']]
  const all = []
  for (const [role, rank] of order) {
    const one = attend(t, coordinator, role, { rank })
    const { membership } = one
    all.push({ ...one, welcome: await membership.welcome })
    membership.listening(`at ${role}`)
  }
  t.same(all.map(({ role, welcome }) => `${role} ${welcome.rank}`),
    ['nn-worker 0', 'parameter-server 1', 'data-loader 0', 'parameter-server 0', 'embedding-worker 0'])
  t.equal(new Set(all.map(({ welcome }) => Buffer.from(welcome.secret).toString('hex'))).size, 1)
  t.equal(all[0]!.welcome.secret.length, 32)
  t.same(parseConfig(JSON.parse(all[0]!.welcome.config)), loadedOf({ parameterServers: 2 }).config)
  t.equal(all[0]!.welcome.baseDir, '/data')
  const rosters = await Promise.all(all.map(({ membership }) => membership.roster))
  t.equal(rosters[0]!.length, 5)
  t.ok(rosters[0]!.every(({ role, address, pid }) => address === `at ${role}` && pid === process.pid))
  for (const { membership } of all.slice(1)) membership.ready()
  t.equal(coordinator.cluster.phase, 'connecting')
  all[0]!.membership.ready()
  await Promise.all(all.map(({ membership }) => membership.begun))
  t.equal(coordinator.cluster.phase, 'running')
})

t.test('a cluster ends role by role, so that nobody loses a peer that it needs', async (t) => {
  const coordinator = await open(t)
  const { 'data-loader': loader, ...others } = await running(t, coordinator)
  await loader.membership.leave(done)
  for (const role of ['nn-worker', 'embedding-worker', 'parameter-server'] as const) {
    const { commands, membership } = others[role]
    await until(() => commands.length > 0, `${role} is told`)
    t.same(commands, ['stop'])
    const later = everyRole.slice(0, everyRole.indexOf(role)).map((other) => (others as Record<string, Attending>)[other]!)
    t.ok(later.every(({ commands: none }) => none.length === 0), `those behind ${role} still work`)
    await membership.leave(done)
  }
  t.same(await coordinator.ended, { kind: 'done' })
})

t.test('of several data loaders number 0 takes the commands and ends the run; the others end before the roles behind', async (t) => {
  const coordinator = await open(t, { dataLoaders: 2 })
  const second = attend(t, coordinator, 'data-loader', { rank: 1 })
  const [{ 'data-loader': driver, ...others }] = await Promise.all([running(t, coordinator), untilBegun(second)])
  coordinator.cluster.stop()
  await until(() => driver.commands.includes('drain'), 'the driver is told')
  t.same(second.commands, [], 'the other is not')
  await driver.membership.leave({ outcome: 'interrupted', code: '', message: '' })
  await until(() => second.commands.includes('stop'), 'nobody needs the other any more')
  t.same(others['nn-worker'].commands, [], 'NN workers may still get what it sends')
  await second.membership.leave(done)
  for (const role of ['nn-worker', 'embedding-worker', 'parameter-server'] as const) {
    await until(() => others[role].commands.includes('stop'), `${role} is told`)
    await others[role].membership.leave(done)
  }
  t.same(await coordinator.ended, { kind: 'interrupted' })
})

t.test('when a role does not end in time it is named, not those that waited for it', async (t) => {
  const coordinator = await open(t, { drainTimeoutSeconds: 1 })
  const { 'data-loader': driver } = await running(t, coordinator)
  await driver.membership.leave(done)
  t.match(await coordinator.ended, { kind: 'failed', error: {
    code: 'PERSIA_CLUSTER_TIMEOUT', message: /^nn-worker 0 did not end in time/ } })
})

t.test('a data loader that does not drive and leaves early ends the cluster, by name', async (t) => {
  const coordinator = await open(t, { dataLoaders: 2 })
  const second = attend(t, coordinator, 'data-loader', { rank: 1 })
  const [all] = await Promise.all([running(t, coordinator), untilBegun(second)])
  await second.membership.leave(done)
  await until(() => everyRole.every((role) => all[role].commands.includes('abort')), 'all are told')
  for (const role of everyRole) await all[role].membership.leave({ outcome: 'interrupted', code: '', message: '' })
  t.match(await coordinator.ended, { kind: 'failed', error: { code: 'PERSIA_PEER_LOST', message: /^data-loader 1 .* left too early/ } })
})

t.test('who cannot be a member is refused with the reason, at once', async (t) => {
  const coordinator = await open(t)
  const refusal = async (role: Role, more: Partial<JoinOptions>, message: RegExp) =>
    t.rejects(attend(t, coordinator, role, more).membership.welcome, { code: 'PERSIA_CLUSTER_REFUSED', message, exitCode: 2 })
  await refusal('nn-worker', { configHash: '0123456789abcdef' }, /another one \(hash 0123456789abcdef\).*leave out --config/)
  await refusal('nn-worker', { rank: 1 }, /there is no nn-worker 1: the cluster has 1/)
  await refusal('trainer' as Role, {}, /there is no role trainer/)
  await attend(t, coordinator, 'nn-worker').membership.welcome
  await refusal('nn-worker', {}, /the places of all 1 of role nn-worker are taken/)
  await refusal('nn-worker', { rank: 0 }, /nn-worker 0 is in the cluster already/)
  t.equal(coordinator.cluster.phase, 'gathering', 'those who were refused change nothing')
})

t.test('a role of another version is refused', async (t) => {
  const { cluster } = await open(t)
  const link = { send() {}, end() {} }
  await t.rejects(cluster.join({ role: 'nn-worker', version: '0.0.1', configHash: '', host: 'h', pid: 1, memberId: '',
    listensOn: '127.0.0.1' }, link), { code: 'PERSIA_CLUSTER_REFUSED', message: /this nn-worker is 0\.0\.1: use one version/ })
})

t.test('every call needs the token where there is one, and health needs none', async (t) => {
  process.env['CONTROL_TEST_TOKEN'] = token
  const auth = { tokenEnv: 'CONTROL_TEST_TOKEN' }
  const coordinator = await open(t, { auth }, readCredentials(auth))
  const wrongs = [nobody, { token: `${token}.`, tls: undefined }, { token: token.slice(1), tls: undefined }]
  for (const credentials of wrongs) {
    const { membership } = attend(t, coordinator, 'nn-worker', { credentials })
    await t.rejects(membership.welcome, { code: 'PERSIA_CLUSTER_REFUSED', message: /token is missing or wrong/ })
    const client = new CoordinatorClient(parseAddress(coordinator.address, 'test'), credentials)
    await t.rejects(client.status(), { code: 'PERSIA_CLUSTER_REFUSED' })
    await t.rejects(client.stop(), { code: 'PERSIA_CLUSTER_REFUSED' })
    client.close()
  }
  const right = { token, tls: undefined }
  t.equal((await attend(t, coordinator, 'nn-worker', { credentials: right }).membership.welcome).rank, 0)
  const client = new CoordinatorClient(parseAddress(coordinator.address, 'test'), right)
  t.match(await client.status(), { phase: 'gathering', members: [{ role: 'nn-worker', rank: 0, state: 'joined' }] })
  client.close()
  t.equal(await health(coordinator.address, ''), 'SERVING')
})

t.test('grpc.health.v1 says whether the coordinator is there and whether the cluster runs', async (t) => {
  const coordinator = await open(t)
  t.equal(await health(coordinator.address, ''), 'SERVING')
  t.equal(await health(coordinator.address, 'persia.cluster'), 'NOT_SERVING')
  await running(t, coordinator)
  t.equal(await health(coordinator.address, 'persia.cluster'), 'SERVING')
  await t.rejects(health(coordinator.address, 'other'), { code: grpc.status.NOT_FOUND })
})

/** As any tool asks: by the standard's own proto. */
function health(address: string, service: string): Promise<string> {
  const { Health } = (grpc.loadPackageDefinition(loadSync(protoPath, { enums: String, defaults: true }))['grpc'] as
    Record<string, Record<string, Record<string, grpc.ServiceClientConstructor>>>)['health']!['v1']!
  const client = new Health!(address, grpc.credentials.createInsecure())
  return new Promise((resolve, reject) => {
    client['check']!({ service }, (error: Error | null, answer: { status: string }) => {
      client.close()
      if (error) reject(error)
      else resolve(answer.status)
    })
  })
}

t.test('with TLS both sides show certificates of the same authority', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'persia-tls-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  process.env['CONTROL_TEST_TOKEN'] = token
  const [ours, theirs] = ['ours', 'theirs'].map((name) =>
    readCredentials({ tokenEnv: 'CONTROL_TEST_TOKEN', tls: certificates(join(folder, name)) }))
  const coordinator = await open(t, { auth: { tokenEnv: 'CONTROL_TEST_TOKEN' } }, ours)
  t.equal((await attend(t, coordinator, 'nn-worker', { credentials: ours! }).membership.welcome).rank, 0)
  for (const credentials of [theirs!, { token, tls: undefined }]) {
    const { membership } = attend(t, coordinator, 'data-loader', { credentials, joinTimeoutSeconds: 1 })
    await t.rejects(membership.welcome, { code: 'PERSIA_CLUSTER_TIMEOUT' })
  }
  t.throws(() => readCredentials({ tls: { ca: join(folder, 'ours-ca.pem'), cert: join(folder, 'ours-ext'), key: join(folder, 'ours-key.pem') } }),
    { code: 'PERSIA_CONFIG_INVALID', message: /ours-ext .*PEM/ })
})

t.test('with TLS a coordinator at an address needs a certificate for that address, and nothing is warned of', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'persia-tls-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const warnings: Error[] = []
  const onWarning = (warning: Error) => { warnings.push(warning) }
  process.on('warning', onWarning)
  t.teardown(() => { process.off('warning', onWarning) })
  for (const [names, isRight] of [['IP:127.0.0.1', true], ['IP:127.0.0.2,DNS:coordinator', false]] as const) {
    const credentials = readCredentials({ tls: certificates(join(folder, String(isRight)), names) })
    const coordinator = await open(t, {}, credentials)
    const client = new CoordinatorClient(parseAddress(coordinator.address, 'test'), credentials)
    t.teardown(() => client.close())
    if (isRight) t.equal((await client.status()).phase, 'gathering')
    else await t.rejects(client.status(), { code: 'PERSIA_CLUSTER_TIMEOUT', message: /127\.0\.0\.1 is not in the cert/ })
  }
  t.same(warnings, [])
})

/** An authority and a certificate for these names by it. */
function certificates(folder: string, names = 'IP:127.0.0.1'): { ca: string; cert: string; key: string } {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'ignore'] })
  const at = (name: string) => `${folder}-${name}`
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl('req', '-x509', ...key, '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '1', '-subj', '/CN=authority')
  openssl('req', ...key, '-keyout', at('key.pem'), '-out', at('csr.pem'), '-subj', '/CN=role')
  writeFileSync(at('ext'), `subjectAltName=${names}\n`)
  openssl('x509', '-req', '-in', at('csr.pem'), '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '1',
    '-extfile', at('ext'), '-out', at('cert.pem'))
  return { ca: at('ca.pem'), cert: at('cert.pem'), key: at('key.pem') }
}

t.test('roles wait for the coordinator, until a deadline', async (t) => {
  const port = quietPort()
  const late = attend(t, { address: `127.0.0.1:${port}` }, 'nn-worker')
  await new Promise((resolve) => setTimeout(resolve, 700))
  await open(t, { port })
  t.equal((await late.membership.welcome).rank, 0)
  const never = attend(t, { address: '127.0.0.1:1' }, 'nn-worker', { joinTimeoutSeconds: 1 })
  await t.rejects(never.membership.welcome, { code: 'PERSIA_CLUSTER_TIMEOUT', message: /127\.0\.0\.1:1 for 1 s/ })
})

t.test('what takes connections and says nothing is not waited for longer than a coordinator that is not there', async (t) => {
  const sockets: Socket[] = []
  const silent = createServer((socket) => { sockets.push(socket.on('error', () => {}).resume()) })
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  t.teardown(() => { silent.close(); for (const socket of sockets) socket.destroy() })
  const { port } = silent.address() as AddressInfo
  const { membership } = attend(t, { address: `127.0.0.1:${port}` }, 'nn-worker', { joinTimeoutSeconds: 1 })
  await t.rejects(membership.welcome, { code: 'PERSIA_CLUSTER_TIMEOUT', message: /for 1 s .*it does not answer/ })
})

t.test('roles that do not come, or do not connect, are named when the deadline is over', async (t) => {
  const coordinator = await open(t, { parameterServers: 2, joinTimeoutSeconds: 1 })
  const { membership, commands } = attend(t, coordinator, 'parameter-server')
  await membership.welcome
  membership.listening('here')
  await until(() => commands.includes('abort'), 'who was there is told')
  await membership.leave(done)
  t.match(await coordinator.ended, { kind: 'failed', error: { code: 'PERSIA_CLUSTER_TIMEOUT', message:
    /^data-loader 0, nn-worker 0, embedding-worker 0, parameter-server 1 did not join within 1 s/ } })
})

t.test('a role that ends without a word ends the cluster, by name', async (t) => {
  const coordinator = await open(t)
  const { 'parameter-server': lost, ...others } = await running(t, coordinator)
  lost.membership.close()
  // Who depended on it says that it lost a peer, and often sooner.
  const nn = others['nn-worker'].membership
  await nn.leave({ outcome: 'failed', code: 'PERSIA_PEER_LOST', message: 'parameter-server 0 does not answer' })
  await until(() => others['data-loader'].commands.includes('abort'), 'the others are told')
  for (const { membership } of [others['data-loader'], others['embedding-worker']]) await membership.leave(done)
  t.match(await coordinator.ended, { kind: 'failed', error: { code: 'PERSIA_PEER_LOST', message:
    /^parameter-server 0 \(process \d+ on .+\) lost its connection and did not come back/ } })
})

t.test('a process that ends before it joined, after the cluster has failed, does not hide why that failed', async (t) => {
  const coordinator = await open(t)
  const first = attend(t, coordinator, 'nn-worker'), second = attend(t, coordinator, 'parameter-server')
  await Promise.all([first.membership.welcome, second.membership.welcome])
  await first.membership.leave({ outcome: 'failed', code: 'PERSIA_DEVICE', message: 'there is no GPU' })
  await until(() => second.commands.includes('abort'), 'the cluster has failed')
  const ended = new PersiaError('PERSIA_PEER_LOST', 'data-loader 0 ended with exit code 1')
  await coordinator.cluster.lost({ role: 'data-loader', rank: 0 }, ended)
  await second.membership.leave(done)
  t.match(await coordinator.ended, { kind: 'failed', error: { code: 'PERSIA_DEVICE', message: 'nn-worker 0: there is no GPU' } })
})

t.test('a cluster that is stopped before all have joined is interrupted, whatever becomes of those who come too late', async (t) => {
  const coordinator = await open(t)
  const { membership, commands } = attend(t, coordinator, 'nn-worker')
  await membership.welcome
  coordinator.cluster.stop()
  await t.rejects(attend(t, coordinator, 'data-loader').membership.welcome, { code: 'PERSIA_CLUSTER_REFUSED' })
  const ended = new PersiaError('PERSIA_PEER_LOST', 'data-loader 0 ended with exit code 2')
  t.notOk(await coordinator.cluster.lost({ role: 'data-loader', rank: 0 }, ended), 'no news')
  await until(() => commands.includes('stop'), 'who was there is told')
  await membership.leave({ outcome: 'interrupted', code: '', message: '' })
  t.same(await coordinator.ended, { kind: 'interrupted' })
})

t.test('before the cluster runs a lost role makes room for another', async (t) => {
  const coordinator = await open(t, { peerTimeoutSeconds: 3 })
  const first = attend(t, coordinator, 'nn-worker')
  await first.membership.welcome
  first.membership.close()
  await until(() => coordinator.cluster.status().members.length === 0, 'its lease is over')
  t.equal((await attend(t, coordinator, 'nn-worker').membership.welcome).rank, 0)
  t.equal(coordinator.cluster.phase, 'gathering')
})

t.test('a failure of a role is told with its code and its message', async (t) => {
  const coordinator = await open(t)
  const { 'data-loader': loader, ...others } = await running(t, coordinator)
  await loader.membership.leave({ outcome: 'failed', code: 'PERSIA_DATA_NOT_FOUND', message: 'none.csv is not there' })
  for (const { membership, commands } of Object.values(others)) {
    await until(() => commands[0] === 'abort', 'the others are told')
    await membership.leave(done)
  }
  t.match(await coordinator.ended, { kind: 'failed', error: {
    code: 'PERSIA_DATA_NOT_FOUND', exitCode: 2, message: 'data-loader 0: none.csv is not there' } })
})

t.test('a checkpoint that is asked for is answered when it is complete, and stop drains', async (t) => {
  const coordinator = await open(t)
  const client = new CoordinatorClient(parseAddress(coordinator.address, 'test'), nobody)
  t.teardown(() => client.close())
  await t.rejects(client.checkpoint(), { code: 'PERSIA_USAGE', message: /the cluster is gathering/ })
  const { 'data-loader': loader, ...others } = await running(t, coordinator)
  const saved = client.checkpoint()
  await until(() => loader.commands.includes('checkpoint'), 'the data loader is told')
  loader.membership.report({ event: 'progress', step: 7, samples: 70, loss: 0.5, samplesPerSecond: 9, staleness: 0 })
  loader.membership.saved(7, 'checkpoints/7')
  t.same(await saved, { step: 7, checkpoint: 'checkpoints/7' })
  const { progress, phase } = await client.status()
  t.match(JSON.parse(progress), { event: 'progress', step: 7 })
  t.equal(phase, 'running')
  await client.stop()
  await until(() => loader.commands.includes('drain'), 'the data loader is told')
  const unanswered = t.rejects(client.checkpoint(), { code: 'PERSIA_ABORTED' })
  await until(() => loader.commands.at(-1) === 'checkpoint', 'the data loader is told once more')
  await loader.membership.leave({ outcome: 'interrupted', code: '', message: '' })
  for (const role of ['nn-worker', 'embedding-worker', 'parameter-server'] as const) {
    await until(() => others[role].commands.includes('stop'), `${role} is told`)
    await others[role].membership.leave(done)
  }
  t.same(await coordinator.ended, { kind: 'interrupted' })
  await unanswered
})

t.test('a connection that breaks for a moment ends nothing', async (t) => {
  const coordinator = await open(t)
  const wire = await proxy(t, coordinator.address)
  const all = everyRole.map((role) => attend(t, role === 'nn-worker' ? wire : coordinator, role))
  const nn = all.find(({ role }) => role === 'nn-worker')!
  for (const { membership } of all) {
    await membership.welcome
    membership.listening('here')
  }
  await nn.membership.roster
  wire.cut()
  for (const { membership } of all) membership.ready()
  await Promise.all(all.map(({ membership }) => membership.begun))
  wire.cut()
  await new Promise((resolve) => setTimeout(resolve, 3500))
  t.equal(coordinator.cluster.phase, 'running')
  t.equal(coordinator.cluster.status().members.length, 4)
  await all.find(({ role }) => role === 'data-loader')!.membership.leave(done)
  wire.cut()
  await until(() => nn.commands.includes('stop'), 'commands come over the new connection')
  await nn.membership.leave(done)
  await until(() => coordinator.cluster.status().members.length === 2, 'it has left in good order')
})

t.test('what is reported while connections break comes once and in order', async (t) => {
  const steps: unknown[] = []
  const coordinator = await open(t, {}, nobody, (event) => steps.push('step' in event && event.step))
  const wire = await proxy(t, coordinator.address)
  const { membership } = attend(t, wire, 'data-loader')
  await membership.welcome
  const sent = Array.from({ length: 60 }, (_, step) => step)
  for (const step of sent) {
    membership.report({ event: 'progress', step, samples: 0, loss: 0, samplesPerSecond: 0, staleness: 0 })
    if (step % 20 === 10) wire.cut()  // what was on its way, and what is said until the connection is back
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  await until(() => steps.length >= sent.length, 'all have come')
  t.same(steps, sent)
})

t.test('breaks of a connection are counted each by itself', async (t) => {
  const coordinator = await open(t)
  const wire = await proxy(t, coordinator.address)
  await attend(t, wire, 'nn-worker').membership.welcome
  const since = performance.now()
  while (performance.now() - since < 4000) {
    wire.cut()
    await new Promise((resolve) => setTimeout(resolve, 150))
  }
  t.match(coordinator.cluster.status().members, [{ role: 'nn-worker', state: 'joined' }], 'it is a member all the time')
})

/** A way to the coordinator whose connections can be cut. */
async function proxy(t: Test, address: string): Promise<{ address: string; cut: () => void }> {
  const sockets = new Set<Socket>()
  const server = createServer((from) => {
    const to = connect(Number(address.split(':')[1]), '127.0.0.1')
    for (const socket of [from, to]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => { from.destroy(); to.destroy(); sockets.delete(socket) })
    }
    from.pipe(to).pipe(from)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = () => { for (const socket of sockets) socket.destroy() }
  t.teardown(() => { server.close(); cut() })
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, cut }
}

t.test('without the coordinator a role ends within seconds', async (t) => {
  const coordinator = await open(t)
  const { 'nn-worker': { membership } } = await running(t, coordinator)
  const before = performance.now()
  await coordinator.close()
  await t.rejects(membership.lost, { code: 'PERSIA_PEER_LOST', message: /^the coordinator (at .* is gone|has ended)/ })
  t.ok(performance.now() - before < 10_000)
})

t.test('roles on several hosts must listen where the others reach them', async (t) => {
  const { cluster, ended } = await open(t)
  const link = { send() {}, end() {} }
  const join = async (role: Role, host: string, listensOn: string) => {
    const version = cluster.status().version
    const { member } = await cluster.join({ role, version, configHash: '', host, pid: 1, memberId: '', listensOn }, link)
    await member.listening('somewhere')
    return member
  }
  const members = [await join('nn-worker', 'a', '10.0.0.1'), await join('embedding-worker', 'a', '10.0.0.1'),
    await join('data-loader', 'a', '127.0.0.1'), await join('parameter-server', 'b', '127.0.0.1')]
  await new Promise((resolve) => setTimeout(resolve, 10))
  for (const member of members) await member.leave(done)
  t.match(await ended, { kind: 'failed', error: {
    code: 'PERSIA_CLUSTER_REFUSED', message: /parameter-server 0 on b listens on 127\.0\.0\.1.*--listen ADDRESS/ } })
})
