//! Plots, drawn as SVG by hand: bars in stacks with marks, and lines over a scale of powers of ten.

use std::fmt::Write as _;

/// Colours of parts and lines, in turn: told apart by people who see few of them, too (Okabe and Ito 2008).
const COLOURS: [&str; 10] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999", "#6a3d9a",
    "#444444",
];
/// Width of a plot, and of what stands left of its axis, in pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 230.0;
/// What the figures behind the bars take.
const RIGHT: f64 = 90.0;
/// Height of a bar with its room.
const BAR: f64 = 20.0;
/// Height of a plot of lines.
const HEIGHT: f64 = 380.0;
/// Room above and below a plot.
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

pub(super) fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

/// A bar: its name, its parts from left to right by place of their colour, what stands behind it.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) parts: Vec<(usize, f64)>,
    /// Marks across it: place of the colour, where.
    pub(super) marks: Vec<(usize, f64)>,
    pub(super) said: String,
}

/// A line: what it is of, and its points.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Text as HTML and SVG have it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The round number (1, 2 or 5 times a power of ten) that some eight steps of reach `most`.
fn step(most: f64) -> f64 {
    let rough = (most / 8.0).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// Bars one below the other.
pub(super) fn bars(bars: &[Bar], unit: &str) -> String {
    let sum = |bar: &Bar| bar.parts.iter().map(|part| part.1).sum::<f64>();
    let marks = bars.iter().flat_map(|bar| bar.marks.iter().map(|mark| mark.1));
    let most = bars.iter().map(sum).chain(marks).fold(1e-9, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let bottom = TOP + BAR * bars.len() as f64;
    let mut svg = begin(bottom + BOTTOM);
    let step = step(most);
    let mut at = 0.0;
    while at <= most {
        let x = LEFT + at * scale;
        let _ = write!(svg, r##"<path d="M{x:.1} {TOP}V{bottom:.1}" stroke="#ddd"/>"##);
        text(&mut svg, x, bottom + 14.0, "middle", &format!("{at:.0}"));
        at += step;
    }
    text(&mut svg, WIDTH - RIGHT, bottom + 29.0, "end", unit);
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + BAR * row as f64;
        text(&mut svg, LEFT - 6.0, y + 14.0, "end", &bar.name);
        let mut x = LEFT;
        for (colour_at, value) in &bar.parts {
            let (width, fill) = (value * scale, colour(*colour_at));
            let _ = write!(
                svg,
                r#"<rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="14" fill="{fill}"><title>{value:.1}</title></rect>"#,
                y + 3.0
            );
            x += width;
        }
        for (colour_at, value) in &bar.marks {
            let (x, stroke) = (LEFT + value * scale, colour(*colour_at));
            let _ = write!(
                svg,
                r#"<path d="M{x:.1} {:.1}v18" stroke="{stroke}" stroke-width="2.5"><title>{value:.0}</title></path>"#,
                y + 1.0
            );
        }
        let behind = bar.marks.iter().map(|mark| LEFT + mark.1 * scale).fold(x, f64::max);
        text(&mut svg, behind + 6.0, y + 14.0, "start", &bar.said);
    }
    svg + "</svg>"
}

/// Latencies: across, the share of packets, each step of the axis a tenth of the packets that are left; up, microseconds, each step ten times.
pub(super) fn quantiles(lines: &[Line]) -> String {
    /// Nines that the axis shows.
    const NINES: f64 = 6.0;
    let nines = |share: f64| -(1.0 - share).max(10_f64.powf(-NINES)).log10();
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|point| point.1.max(0.1)));
    let low = values().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let (left, bottom) = (70.0, TOP + HEIGHT);
    let x = |share: f64| left + nines(share) / NINES * (WIDTH - left - 20.0);
    let y = |value: f64| bottom - (value.max(0.1).log10() - low) / (high - low) * HEIGHT;
    let mut svg = begin(bottom + BOTTOM);
    for power in low as i32..=high as i32 {
        let (at, value) = (y(10_f64.powi(power)), 10_f64.powi(power));
        let _ = write!(svg, r##"<path d="M{left} {at:.1}H{}" stroke="#ddd"/>"##, WIDTH - 20.0);
        text(&mut svg, left - 6.0, at + 4.0, "end", &format!("{value} µs"));
    }
    for count in 0..=NINES as i32 {
        let at = x(1.0 - 10_f64.powi(-count));
        let _ = write!(svg, r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#ddd"/>"##);
        let percent = 100.0 * (1.0 - 10_f64.powi(-count));
        text(&mut svg, at, bottom + 14.0, "middle", &format!("{percent} %"));
    }
    for (at, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (share, value) in &line.points {
            let _ =
                write!(path, "{}{:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, x(*share), y(*value));
        }
        let (stroke, name) = (colour(at), escaped(&line.name));
        let _ = write!(
            svg,
            r#"<path d="{path}" fill="none" stroke="{stroke}" stroke-width="2"><title>{name}</title></path>"#
        );
    }
    svg + "</svg>"
}

/// What the colours mean.
pub(super) fn legend<'a>(names: impl IntoIterator<Item = (usize, &'a str)>) -> String {
    let item = |(at, name): (usize, &str)| {
        format!(r#"<span><i style="background:{}"></i>{}</span>"#, colour(at), escaped(name))
    };
    format!(r#"<p class="legend">{}</p>"#, names.into_iter().map(item).collect::<String>())
}

fn begin(height: f64) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" font-size="12">"#
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, said: &str) {
    let said = escaped(said);
    let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{said}</text>"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        assert_eq!([8.0, 75.0, 300.0, 3668.0].map(step), [1.0, 10.0, 50.0, 500.0]);
    }

    #[test]
    fn a_bar_s_parts_stand_side_by_side_in_scale() {
        let one = Bar {
            name: "a < b".into(),
            parts: vec![(0, 30.0), (1, 70.0)],
            marks: vec![(2, 200.0)],
            said: "100".into(),
        };
        let svg = bars(&[one], "cycles");
        // The mark is the right end of the axis, 640 pixels from its left one: 3.2 a cycle.
        assert!(svg.contains(r#"x="230.0" y="13.0" width="96.0""#), "{svg}");
        assert!(svg.contains(r#"x="326.0" y="13.0" width="224.0""#), "{svg}");
        assert!(svg.contains("M870.0 11.0v18") && svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn a_line_goes_up_ten_times_a_step_and_right_a_nine_a_step() {
        let line =
            Line { name: "wire".into(), points: vec![(0.0, 1.0), (0.9, 10.0), (0.99, 100.0), (1.0, 100.0)] };
        let svg = quantiles(&[line]);
        assert!(svg.contains(r#"d="M70.0 390.0L215.0 200.0L360.0 10.0L940.0 10.0""#), "{svg}");
    }
}
