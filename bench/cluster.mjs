// A cluster on this host beside one process: samples/s with the same network, data and steps, and what travels between
// the roles for a sample, with each wire format.
//
//   npm run bench -- cluster [--rounds 5] [--epochs 6] [--transport auto] [--smoke] [--out FILE]
//
// The network is small, so that lookups matter. Runs take turns, train and launch, `rounds` of each; the ratio is that
// of the medians. Bytes are those of messages with their headers as the roles that received them counted them; what goes
// back to the data loader, little, is not among them. There is no evaluation. Needs the built package (npm run build).
// With --out every result is appended to FILE as a JSON line.
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' }, epochs: { type: 'string', default: '6' },
    transport: { type: 'string', default: 'auto' }, smoke: { type: 'boolean', default: false }, out: { type: 'string' },
  },
})
const rounds = options.smoke ? 1 : Number(options.rounds)
const epochs = options.smoke ? 1 : Number(options.epochs)
const folder = mkdtempSync(join(tmpdir(), 'persia-bench-cluster-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const adult = join(root, 'examples/adult-income')
const config = join(folder, 'config.yml')
writeFileSync(config, readFileSync(join(adult, 'persia.yml'), 'utf8').replace(/^ +test: .*\n/m, '')
  .replace('train.csv.gz', join(adult, 'train.csv.gz')))

const wires = [
  { label: 'fp32' },
  { label: 'fp16', rows: 'fp16', gradients: 'fp16', activations: 'fp16' },
  { label: 'bf16', rows: 'bf16', gradients: 'bf16', activations: 'bf16' },
  { label: 'int8', rows: 'int8', gradients: 'int8', activations: 'fp16' },
  { label: 'fp32, ids lz4', compression: 'lz4' },
  { label: 'fp32, ids zstd', compression: 'zstd' },
]

console.log(`${cpus()[0].model}, ${cpus().length} cores; ${rounds} rounds of ${epochs} epochs of adult-income, `
  + 'hidden [64, 32]')
speeds()
for (const wire of options.smoke ? wires.slice(0, 2) : wires) bytes(wire)

function speeds() {
  const one = [], cluster = []
  for (let round = 0; round < rounds; round++) {
    one.push(run('train').done.samplesPerSecond)
    const settings = { 'cluster.parameterServers': 2, 'cluster.transport': options.transport }
    cluster.push(run('launch', settings).done.samplesPerSecond)
  }
  const ratio = median(cluster) / median(one)
  const show = (values) => `${median(values)} samples/s (${Math.min(...values)} … ${Math.max(...values)})`
  console.log(`one process               ${show(one)}`)
  console.log(`cluster of 2 PS, 1 EW, 1 NN  ${show(cluster)}: ${ratio.toFixed(2)} of one process`)
  record({ benchmark: 'cluster speed', transport: options.transport, one, cluster, ratio })
}

function bytes({ label, ...wire }) {
  const settings = Object.fromEntries(Object.entries(wire).map(([key, value]) => [`cluster.wire.${key}`, value]))
  const { done, log, samples } = run('launch', { 'cluster.parameterServers': 2, ...settings })
  const counted = (role) => log.matchAll(new RegExp(`${role}-\\d+ +\\| .*received (\\d+) bytes`, 'g'))
  const of = (role) => [...counted(role)].reduce((sum, [, received]) => sum + Number(received), 0) / samples
  const [servers, workers, networks] = ['parameter-server', 'embedding-worker', 'nn-worker'].map(of)
  const line = (value) => value.toFixed(0).padStart(6)
  console.log(`${label.padEnd(15)} bytes a sample to parameter servers ${line(servers)}, `
    + `embedding workers ${line(workers)}, NN workers ${line(networks)}, all ${line(servers + workers + networks)}`)
  record({ benchmark: 'cluster bytes', wire: label, servers, workers, networks, steps: done.steps })
}

/** A run of the command line: its done event, its log, and the samples that it trained. */
function run(command, settings = {}) {
  const all = {
    'model.hidden': [64, 32], 'model.optimizer.lr': 0.003, epochs, 'checkpoint.dir': join(folder, 'run'),
    'checkpoint.resume': 'never', ...settings,
  }
  const sets = Object.entries(all).flatMap(([key, value]) => ['--set', `${key}=${JSON.stringify(value)}`])
  const { status, stdout, stderr } = spawnSync(process.execPath, [
    join(root, 'dist/cli/main.js'), command, '--config', config, ...sets, '--json',
  ], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`persia ${command} ended with ${status}:\n${stderr}`)
  const events = stdout.trim().split('\n').map((line) => JSON.parse(line))
  const { samples } = events.filter(({ event }) => event === 'progress').at(-1)
  return { done: events.at(-1), log: stderr, samples }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}

function record(result) {
  if (!options.out) return
  appendFileSync(options.out, `${JSON.stringify({ date: new Date().toISOString(), cpu: cpus()[0].model, ...result })}\n`)
}
