// What people ask a running cluster: status, checkpoint, stop.
import type * as grpc from '@grpc/grpc-js'
import { PersiaError } from '../errors.js'
import { addressText, type Address } from './address.js'
import { tokenMetadata, type Credentials } from './auth.js'
import { openChannel } from './channel.js'
import { coordinatorService, type ClusterStatus, type SavedMessage } from './messages.js'
import { fromStatus, plainDetails } from './status.js'

const answerSeconds = 10

export class CoordinatorClient {
  private readonly client: grpc.Client

  constructor(private readonly coordinator: Address, private readonly credentials: Credentials) {
    this.client = openChannel(coordinator, credentials)
  }

  status(): Promise<ClusterStatus> {
    return this.call('Status', answerSeconds)
  }

  /** Answers when the checkpoint is complete, however long that takes; at once when there is no coordinator. */
  async checkpoint(): Promise<SavedMessage> {
    await this.status()
    return this.call('Checkpoint')
  }

  async stop(): Promise<void> {
    await this.call('Stop', answerSeconds)
  }

  close(): void {
    this.client.close()
  }

  private call<T>(name: 'Status' | 'Checkpoint' | 'Stop', seconds?: number): Promise<T> {
    const { path, requestSerialize, responseDeserialize } = coordinatorService()[name]!
    const options = seconds === undefined ? {} : { deadline: Date.now() + seconds * 1000 }
    return new Promise((resolve, reject) => {
      const metadata = tokenMetadata(this.credentials)
      this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, {}, metadata, options, (error, answer) =>
        (error ? reject(this.failure(error)) : resolve(answer as T)))
    })
  }

  private failure(error: grpc.ServiceError): PersiaError {
    return fromStatus(error) ?? new PersiaError('PERSIA_CLUSTER_TIMEOUT',
      `there is no coordinator at ${addressText(this.coordinator)}: ${plainDetails(error)}`, {}, { cause: error })
  }
}
