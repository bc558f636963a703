// `persia cluster status | checkpoint | stop`: asks the coordinator of a running cluster.
import type { CommandModule } from 'yargs'
import { CoordinatorClient } from '../control/commands.js'
import type { ClusterStatus } from '../control/messages.js'
import { memberName } from '../control/roles.js'
import { coordinatorAddress, coordinatorOptions, credentialsOf, type CoordinatorArguments } from './cluster-options.js'

interface ClusterArguments extends CoordinatorArguments { command: 'status' | 'checkpoint' | 'stop'; json: boolean }

export const clusterCommand: CommandModule<object, ClusterArguments> = {
  command: 'cluster <command>',
  describe: 'Ask a running cluster: its status, a checkpoint, or to stop',
  builder: (yargs) => coordinatorOptions(yargs)
    .positional('command', {
      choices: ['status', 'checkpoint', 'stop'] as const, demandOption: true,
      describe: '`checkpoint` saves after the step under way; `stop` ends training with a checkpoint',
    })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' }),
  async handler(args) {
    const client = new CoordinatorClient(coordinatorAddress(args), credentialsOf(args))
    const say = (event: object, text: string) =>
      process.stdout.write(`${args.json ? JSON.stringify({ event: args.command, ...event }) : text}\n`)
    try {
      if (args.command === 'status') {
        const status = await client.status()
        const progress = status.progress === '' ? null : JSON.parse(status.progress) as object
        say({ ...status, progress }, statusText(status))
      } else if (args.command === 'checkpoint') {
        const { step, checkpoint } = await client.checkpoint()
        say({ step, checkpoint }, `checkpoint ${checkpoint} is complete (step ${step})`)
      } else {
        await client.stop()
        say({}, 'the cluster stops after this step, with a checkpoint')
      }
    } finally {
      client.close()
    }
  },
}

function statusText({ name, phase, members, missing, progress, version, configHash }: ClusterStatus): string {
  const rows = members.map(({ role, rank, state, host, pid, address }) =>
    `  ${memberName({ role, rank }).padEnd(20)} ${state.padEnd(10)} process ${pid} on ${host}`
    + (address && `, ${address}`))
  return [
    `${name}: ${phase} (persia ${version}, config ${configHash})`, ...rows,
    ...(missing.length > 0 ? [`  missing: ${missing.join(', ')}`] : []),
    ...(progress === '' ? [] : [`  last progress: ${progress}`]),
  ].join('\n')
}
