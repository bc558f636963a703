// Means with 95 % intervals, and the plot of the convergence benchmark.

// Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the normal distribution's is near enough.
const t95 = [NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]

/** Mean of some numbers and half the width of its 95 % interval; the latter is NaN for a single number. */
export function estimate(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  const error = Math.sqrt(squares / (values.length - 1) / values.length)
  return { mean, interval: (t95[values.length - 1] ?? 1.96) * error }
}

const colors = { hybrid: '#1f5fa8', worst: '#8a8a8a', async: '#c0392b' }

/**
 * An SVG of differences to sync: a panel with a scale of its own for each data set, a point with its
 * interval for each mode.
 * `panels` is [{ name, points: [{ label, mean, interval }] }].
 */
export function plot(panels, title) {
  const width = 860, left = 150, right = 30, rowHeight = 22, panelGap = 46, top = 54
  const parts = []
  let y = top
  for (const { name, points } of panels) {
    const most = Math.max(...points.map(({ mean, interval }) => Math.abs(mean) + (interval || 0)))
    const x = (value) => left + (width - left - right) * (0.5 + value / (2.1 * most))
    parts.push(`<text x="12" y="${y}" font-weight="bold">${name}</text>`)
    const bottom = y + points.length * rowHeight + 6
    for (const tick of [-1, -0.5, 0, 0.5, 1]) {
      const at = x(tick * most).toFixed(1), label = (tick * most).toFixed(4)
      parts.push(`<line x1="${at}" x2="${at}" y1="${y - 8}" y2="${bottom}" stroke="${tick === 0 ? '#444' : '#ddd'}"/>`,
        `<text x="${at}" y="${bottom + 14}" text-anchor="middle" fill="#555">${label}</text>`)
    }
    for (const [i, { label, mean, interval }] of points.entries()) {
      const row = y + 14 + i * rowHeight, color = colors[label.split('-')[0]]
      parts.push(`<text x="${left - 10}" y="${row + 4}" text-anchor="end">${label}</text>`,
        `<line x1="${x(mean - interval).toFixed(1)}" x2="${x(mean + interval).toFixed(1)}" y1="${row}" y2="${row}" `
          + `stroke="${color}" stroke-width="2"/>`,
        `<circle cx="${x(mean).toFixed(1)}" cy="${row}" r="4" fill="${color}"/>`)
    }
    y = bottom + panelGap
  }
  const size = `width="${width}" height="${y - 10}" font-family="sans-serif" font-size="12"`
  return [`<svg xmlns="http://www.w3.org/2000/svg" ${size}>`, '<rect width="100%" height="100%" fill="white"/>',
    `<text x="12" y="22" font-size="15">${title}</text>`, ...parts, '</svg>', ''].join('\n')
}
