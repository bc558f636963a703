// Where the dense network of a config runs.
import type { Config } from '../config/index.js'
import { native } from '../native.js'

/** `auto` takes a GPU where there is one that the model can train on, else the CPU; a device that is named is meant. */
export function chosenDevice({ device, mode, model }: Config): 'cpu' | 'cuda' {
  if (device !== 'auto') return device
  const suits = model.type === 'ffnn' && model.hidden.length > 0 && mode !== 'async'
  return suits && native().cuda().devices.length > 0 ? 'cuda' : 'cpu'
}
