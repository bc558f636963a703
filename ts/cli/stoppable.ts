// Ctrl-C and SIGTERM, for commands that end in good order.

/** Does `work` with a signal that the first of them aborts, which `log` tells. The second ends the process at once. */
export async function stoppable(
  log: (line: string) => void, work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130)
    log('stopping after this step; once more to stop at once')
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  try {
    await work(stop.signal)
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}
