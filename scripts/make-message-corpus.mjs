// Makes test/fuzz/corpus/fuzz_messages anew: one message of each kind that processes send each other. Run it when the
// format of messages changes.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('../test/fuzz/corpus/fuzz_messages/', import.meta.url))
const u8 = (value) => Buffer.from([value])
const u16 = (value) => { const bytes = Buffer.alloc(2); bytes.writeUInt16LE(value); return bytes }
const u32 = (value) => { const bytes = Buffer.alloc(4); bytes.writeUInt32LE(value); return bytes }
const u64 = (value) => { const bytes = Buffer.alloc(8); bytes.writeBigUInt64LE(BigInt(value)); return bytes }
const text = (value) => Buffer.concat([u32(value.length), Buffer.from(value)])
const frame = (kind, body) => Buffer.concat([u32(0x54435350), u16(1), u16(kind), u32(body.length), body])

const offer = Buffer.concat([text('0123456789abcdef'), u8(0), text('boot/1:2'), u32(1), text('rxe0:1'), text(''), u64(7)])
const answer = Buffer.concat([u8(3), text('both are on one host'), u64(9), text('/persia-0123456789abcdef')])
const header = Buffer.concat([u32(0x54_4e_53_50), u8(1), u8(4), u16(2), u16(0x11), u16(0), u32(0), u64(5), u64(3), u64(4), u64(0)])
// The first byte picks the decoder: see test/fuzz/fuzz_messages.cc.
const seeds = {
  header: [u8(0), header, Buffer.from('data')],
  hello: [u8(1), u32(1), u64(11), u64(2), text('0123456789abcdef')],
  welcome: [u8(1), u64(12)],
  status: [u8(1), text('PERSIA_TABLE_FULL'), text('full'), u32(1), text('sign'), text('5')],
  offer: [u8(2), offer],
  answer: [u8(2), answer],
  place: [u8(2), text('a worker')],
  stream: [u8(2), frame(1, offer), frame(3, text('a worker')), frame(5, Buffer.alloc(0))],
  join: [u8(3), u32(1), u32(4), text('0123456789abcdef')],
  left: [u8(3), u32(1), u64(40)],
  ask: [u8(3), u32(0), u32(2), u32(1), u32(3)],
  'ids-raw': [u8(4), u8(0), u32(2), u32(16), u64(1), u64(2)],
  rows: [u8(4), u8(67), u32(0), u32(0), Buffer.alloc(3 * 17 * 2, 0x3c)],
}
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
for (const [name, parts] of Object.entries(seeds)) writeFileSync(`${folder}${name}`, Buffer.concat(parts))
