// The Prometheus endpoint of a trainer: http://127.0.0.1:PORT/metrics. Only this machine reaches it; scrapers elsewhere
// go through an agent or a proxy that knows who may.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import { PersiaError } from '../errors.js'
import { TrainerMetrics, type Observed } from './trainer-metrics.js'

const host = '127.0.0.1'

export class MetricsEndpoint {
  private constructor(private readonly server: Server, readonly metrics: TrainerMetrics) {}

  /** PERSIA_IO when the port is not to be had. `stalenessBound` is that of the config. */
  static async listen(port: number, observed: Observed, stalenessBound: number): Promise<MetricsEndpoint> {
    const metrics = new TrainerMetrics(observed, stalenessBound)
    const server = createServer((request, response) => void answer(metrics, request, response))
    try {
      await once(server.listen(port, host), 'listening')
    } catch (error) {
      throw new PersiaError('PERSIA_IO',
        `metrics.port: cannot listen on ${host}:${port}: ${(error as Error).message}`,
        { path: 'metrics.port', port }, { cause: error })
    }
    server.unref()  // keeps no process alive
    return new MetricsEndpoint(server, metrics)
  }

  async close(): Promise<void> {
    if (!this.server.listening) return
    const closed = once(this.server, 'close')
    this.server.close()
    this.server.closeAllConnections()
    await closed
  }
}

async function answer(metrics: TrainerMetrics, { method, url = '' }: IncomingMessage, response: ServerResponse):
Promise<void> {
  const end = (status: number, text: string, type = 'text/plain; charset=utf-8') =>
    response.writeHead(status, { 'content-type': type }).end(text)
  if (url.split('?', 1)[0] !== '/metrics') return void end(404, 'the metrics are at /metrics\n')
  if (method !== 'GET' && method !== 'HEAD') return void end(405, 'only GET\n')
  try {
    end(200, await metrics.text(), metrics.contentType)
  } catch (error) {
    end(500, `${(error as Error).message}\n`)
  }
}
