"""Plots of a bench run as SVG files: lines over a logarithmic axis, legible on light and on dark pages."""
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 48
COLORS = ("#2563eb", "#d97706", "#059669", "#db2777")


def nice_step(top):
    """A round distance between at most six grid lines."""
    step = 1
    while top / step > 6:
        step *= 2.5 if str(step)[0] == "2" else 2
    return int(step) if step >= 1 and step == int(step) else step


def number(value):
    if value >= 10**6:
        return f"{value / 10**6:g} M"
    return f"{value / 1000:g} k" if value >= 1000 else f"{value:g}"


def line_plot(path, title, x_label, y_label, series):
    """series: {name: {x: y}}. The x of all series, as they are, at equal distances."""
    xs = sorted({x for points in series.values() for x in points})
    top = max(y for points in series.values() for y in points.values()) * 1.05
    step = nice_step(top)

    def at(x, y):
        width = WIDTH - LEFT - RIGHT
        return (LEFT + width * (xs.index(x) + 0.5) / len(xs), HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           f'<text x="{LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>']
    value = 0
    while value <= top:
        y = at(xs[0], value)[1]
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{number(value)}</text>')
        value += step
    for x in xs:
        out.append(f'<text x="{at(x, 0)[0]:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#555555">{number(x)}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    place = LEFT
    for index, (name, points) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        places = [at(x, points[x]) for x in xs if x in points]
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="'
                   + " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + '"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in places]
        out.append(f'<circle cx="{place + 4}" cy="32" r="4" fill="{color}"/><text x="{place + 12}" y="36">{escape(name)}</text>')
        place += 28 + 7 * len(name)
    out.append("</svg>")
    path.write_text("\n".join(out) + "\n")


def draw(figures, folder):
    """All plots that the figures allow; returns their names."""
    names = []

    def plot(name, *arguments):
        line_plot(folder / name, *arguments)
        names.append(name)

    if "throughput" in figures:
        sides = {"https": "over HTTPS", "pgbench": "pgbench, same function"}
        for kind, by_clients in figures["throughput"].items():
            for key, label in (("rps", "requests/s"), ("p99_ms", "p99 latency, ms")):
                plot(f"{kind}-{key.split('_')[0]}-clients.svg", f"{kind}: {label} against clients", "clients", label,
                     {text: {int(clients): sides_of[side][key] for clients, sides_of in by_clients.items()}
                      for side, text in sides.items()})
    if "live_rows" in figures:
        for key, label in (("rps", "requests/s"), ("p99_ms", "p99 latency, ms")):
            plot(f"{key.split('_')[0]}-rows.svg", f"64 clients: {label} against live rows, after a checkpoint", "live rows", label,
                 {kind: {int(size): point[key] for size, point in by_size.items()}
                  for kind, by_size in figures["live_rows"].items()})
    return names
