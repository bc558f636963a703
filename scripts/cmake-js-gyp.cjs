#!/usr/bin/env node
// Stands in for node-gyp when prebuildify builds the addon: it takes node-gyp's command line and calls cmake-js, which would
// read --target and others differently. Of the arguments only the configuration and the architecture matter for N-API.
const { spawnSync } = require('node:child_process')

const args = process.argv.slice(2)
const arch = args.find((arg) => arg.startsWith('--arch='))?.slice('--arch='.length) ?? process.arch
const config = args.includes('--debug') ? 'Debug' : 'Release'
const cmakeJs = require.resolve('cmake-js/bin/cmake-js')
const { status } = spawnSync(process.execPath, [cmakeJs, 'build', '--config', config, '--arch', arch], { stdio: 'inherit' })
process.exit(status ?? 1)
