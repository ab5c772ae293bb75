//! Charts of what a run measured, written as SVG.
//!
//! Invariant: a chart says what its axes count and in which unit, and its bytes are a function of
//! its points.

use std::fmt::Write;

/// How the points of a line are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Joined.
    Line,
    /// Each holds until the next.
    Steps,
    /// A bar each, at whole numbers.
    Bars,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name in the legend; may be empty when it is the only one.
    pub label: String,
    /// How it is drawn.
    pub shape: Shape,
    /// Abscissa and ordinate, in order of the abscissa.
    pub points: Vec<(f64, f64)>,
}

/// A vertical line across the chart: a bound, a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// What it stands for.
    pub label: String,
    /// Abscissa.
    pub x: f64,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Stem of its file name.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What the abscissa counts, with its unit.
    pub x_label: &'static str,
    /// What the ordinate counts, with its unit.
    pub y_label: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
    /// Vertical lines.
    pub marks: Vec<Mark>,
}

/// Width of the picture.
const WIDTH: f64 = 860.0;
/// Height of the picture.
const HEIGHT: f64 = 460.0;
/// Height of a line of the small print below it, of which the first is within [`HEIGHT`].
const FOOTER_LINE: f64 = 13.0;
/// Characters of small print in one line: as many as fit beside the widest letters.
const FOOTER_WIDTH: usize = 120;
/// Left, top, right and bottom of the area in which lines are drawn.
const AREA: (f64, f64, f64, f64) = (78.0, 52.0, 650.0, 396.0);
/// Colours that people with colour blindness tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];
/// Dash patterns of the second and further rounds through the colours.
const DASHES: [&str; 3] = ["", "7 3", "2 3"];

impl Chart {
    /// A chart without lines.
    #[must_use]
    pub const fn new(
        name: &'static str,
        title: &'static str,
        x_label: &'static str,
        y_label: &'static str,
    ) -> Self {
        Self {
            name,
            title,
            x_label,
            y_label,
            lines: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// The same with one line more.
    #[must_use]
    pub fn with(mut self, label: &str, shape: Shape, points: Vec<(f64, f64)>) -> Self {
        self.lines.push(Line {
            label: label.to_owned(),
            shape,
            points,
        });
        self
    }

    /// The same with a vertical line.
    #[must_use]
    pub fn with_mark(mut self, label: &str, x: f64) -> Self {
        self.marks.push(Mark {
            label: label.to_owned(),
            x,
        });
        self
    }

    /// Takes the lines of another run's chart of the same name, named after that run.
    pub fn absorb(&mut self, run: &str, other: &Self) {
        let renamed = |label: &str| match label {
            "" => run.to_owned(),
            label => format!("{run}: {label}"),
        };
        for line in &other.lines {
            let label = renamed(&line.label);
            self.lines.push(Line {
                label,
                ..line.clone()
            });
        }
        for mark in &other.marks {
            let is_there = self.marks.contains(mark);
            if !is_there {
                self.marks.push(mark.clone());
            }
        }
    }

    /// The points as `label,x,y` lines under a heading.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut csv = format!("line,{},{}\n", quoted(self.x_label), quoted(self.y_label));
        for line in &self.lines {
            for (x, y) in &line.points {
                csv.push_str(&format!("{},{x},{y}\n", quoted(&line.label)));
            }
        }
        csv
    }

    /// The picture. `source` is printed below it: scenario, seed, settings.
    #[must_use]
    pub fn to_svg(&self, source: &str) -> String {
        let mut svg = String::new();
        self.write_svg(&mut svg, source)
            .expect("writing into a string does not fail");
        svg
    }

    fn write_svg(&self, svg: &mut String, source: &str) -> std::fmt::Result {
        let scale = self.scale();
        let (left, top, right, bottom) = AREA;
        let footer = footer_lines(source);
        let height = HEIGHT + FOOTER_LINE * crate::statistics::count(footer.len().max(1) - 1);
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">"
        )?;
        writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>")?;
        write_text(svg, (left, 28.0), "start", 17, self.title)?;
        for (row, line) in footer.iter().enumerate() {
            let y = HEIGHT - 10.0 + FOOTER_LINE * crate::statistics::count(row);
            write_text(svg, (left, y), "start", 10, line)?;
        }
        let middle = f64::midpoint(left, right);
        write_text(svg, (middle, bottom + 38.0), "middle", 13, self.x_label)?;
        let centre = f64::midpoint(top, bottom);
        writeln!(
            svg,
            "<text transform=\"translate(20 {centre:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            escaped(self.y_label)
        )?;
        scale.write_axes(svg)?;
        let bars = self.lines.iter().filter(|line| line.shape == Shape::Bars);
        let bar_lines = bars.count();
        let mut bars_before = 0;
        for (index, line) in self.lines.iter().enumerate() {
            match line.shape {
                Shape::Bars => {
                    write_bars(svg, &scale, line, index, (bars_before, bar_lines))?;
                    bars_before += 1;
                }
                Shape::Line | Shape::Steps => write_line(svg, &scale, line, index)?,
            }
        }
        for (index, mark) in self.marks.iter().enumerate() {
            let x = scale.x(mark.x);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#555\" stroke-dasharray=\"4 4\"/>"
            )?;
            let y = top + 14.0 + 15.0 * crate::statistics::count(index % 4);
            write_text(svg, (x + 4.0, y), "start", 11, &mark.label)?;
        }
        self.write_legend(svg)?;
        writeln!(svg, "</svg>")
    }

    fn write_legend(&self, svg: &mut String) -> std::fmt::Result {
        let is_named = |line: &Line| !line.label.is_empty();
        let named = self.lines.iter().enumerate().filter(|(_, l)| is_named(l));
        for (row, (index, line)) in named.enumerate() {
            let y = AREA.1 + 8.0 + 19.0 * crate::statistics::count(row);
            let (colour, dash) = pen(index);
            writeln!(
                svg,
                "<path d=\"M{:.0} {y:.1}h24\" stroke=\"{colour}\" stroke-width=\"3\" \
                 stroke-dasharray=\"{dash}\"/>",
                AREA.2 + 14.0
            )?;
            write_text(svg, (AREA.2 + 44.0, y + 4.0), "start", 12, &line.label)?;
        }
        Ok(())
    }

    fn scale(&self) -> Scale {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let has_bars = self.lines.iter().any(|line| line.shape == Shape::Bars);
        let marks = self.marks.iter().map(|mark| mark.x);
        let xs = points().map(|point| point.0).chain(marks);
        let (mut x_min, x_max) = range(xs);
        let (y_min, y_max) = range(points().map(|point| point.1));
        let margin = if has_bars { 0.6 } else { 0.0 };
        // An axis begins at 0 unless all of it lies far from there.
        if x_min > 0.0 && x_min < x_max / 2.0 && !has_bars {
            x_min = 0.0;
        }
        let y_low = if y_min > y_max * 0.8 && !has_bars && y_max - y_min > 0.0 {
            y_min - (y_max - y_min) * 0.1
        } else {
            y_min.min(0.0)
        };
        Scale {
            x: Ticks::new(x_min - margin, x_max + margin, has_bars),
            y: Ticks::new(y_low, y_max + (y_max - y_low) * 0.04, false),
        }
    }
}

/// The smallest and the greatest of some numbers; 0 and 1 when there are none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    finite
        .fold(None, |range, value| match range {
            None => Some((value, value)),
            Some((min, max)) => Some((value.min(min), value.max(max))),
        })
        .unwrap_or((0.0, 1.0))
}

/// One axis: its range and the round numbers on it.
#[derive(Debug)]
struct Ticks {
    low: f64,
    high: f64,
    step: f64,
}

impl Ticks {
    /// About six round numbers between these two; whole ones if asked for.
    fn new(low: f64, high: f64, is_whole: bool) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let mut step = 1e-9;
        let factors = [2.0, 2.5, 2.0];
        let mut round = factors.iter().cycle();
        while (high - low) / step > 7.0 || (is_whole && step < 0.99) {
            step *= round.next().expect("a cycle does not end");
        }
        Self { low, high, step }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn position(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let first = (self.low / self.step).ceil() * self.step;
        let ticks = std::iter::successors(Some(first), |value| Some(value + self.step));
        ticks.take_while(|value| *value <= self.high + self.step * 1e-6)
    }

    /// A value with as many decimals as the step needs.
    fn text(&self, value: f64) -> String {
        let mut decimals = 0;
        let mut step = self.step;
        while decimals < 6 && (step - step.round()).abs() > 1e-6 * step {
            step *= 10.0;
            decimals += 1;
        }
        // No "-0".
        let value = if value.abs() < self.step / 2.0 {
            0.0
        } else {
            value
        };
        format!("{value:.decimals$}")
    }
}

/// From values to places in the picture.
#[derive(Debug)]
struct Scale {
    x: Ticks,
    y: Ticks,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        AREA.0 + self.x.position(value) * (AREA.2 - AREA.0)
    }

    fn y(&self, value: f64) -> f64 {
        AREA.3 - self.y.position(value) * (AREA.3 - AREA.1)
    }

    fn write_axes(&self, svg: &mut String) -> std::fmt::Result {
        let (left, top, right, bottom) = AREA;
        for value in self.y.values() {
            let y = self.y(value);
            writeln!(svg, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>")?;
            let text = self.y.text(value);
            write_text(svg, (left - 7.0, y + 4.0), "end", 12, &text)?;
        }
        for value in self.x.values() {
            let x = self.x(value);
            writeln!(svg, "<path d=\"M{x:.1} {bottom}v5\" stroke=\"#333\"/>")?;
            let text = self.x.text(value);
            write_text(svg, (x, bottom + 19.0), "middle", 12, &text)?;
        }
        writeln!(
            svg,
            "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#333\"/>"
        )
    }
}

/// Colour and dash pattern of a line.
fn pen(index: usize) -> (&'static str, &'static str) {
    let dash = (index / COLOURS.len()) % DASHES.len();
    (COLOURS[index % COLOURS.len()], DASHES[dash])
}

fn write_line(svg: &mut String, scale: &Scale, line: &Line, index: usize) -> std::fmt::Result {
    let mut path = String::new();
    for (number, (x, y)) in line.points.iter().enumerate() {
        let (x, y) = (scale.x(*x), scale.y(*y));
        match (number, line.shape) {
            (0, _) => write!(path, "M{x:.1} {y:.1}")?,
            (_, Shape::Steps) => write!(path, "H{x:.1}V{y:.1}")?,
            (_, Shape::Line | Shape::Bars) => write!(path, "L{x:.1} {y:.1}")?,
        }
    }
    let (colour, dash) = pen(index);
    writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dash}\"/>"
    )
}

/// Bars beside those of the other lines: this is line `place.0` of `place.1`.
fn write_bars(
    svg: &mut String,
    scale: &Scale,
    line: &Line,
    index: usize,
    place: (usize, usize),
) -> std::fmt::Result {
    let whole = (AREA.2 - AREA.0) / (scale.x.high - scale.x.low);
    let width = whole * 0.8 / crate::statistics::count(place.1.max(1));
    let bottom = scale.y(0.0);
    for (x, y) in &line.points {
        let left = scale.x(*x) - whole * 0.4 + width * crate::statistics::count(place.0);
        let top = scale.y(*y);
        writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"{}\"/>",
            bottom - top,
            pen(index).0
        )?;
    }
    Ok(())
}

fn write_text(
    svg: &mut String,
    (x, y): (f64, f64),
    anchor: &str,
    size: u32,
    text: &str,
) -> std::fmt::Result {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>",
        escaped(text)
    )
}

/// The small print in lines that fit under the picture, broken between words.
fn footer_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= FOOTER_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Text as XML takes it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart::new("hops", "Hops", "hops", "share of lookups").with(
            "",
            Shape::Bars,
            vec![(1.0, 0.25), (2.0, 0.75)],
        )
    }

    #[test]
    fn axes_have_few_round_numbers() {
        for (low, high) in [(0.0, 1.0), (0.0, 0.003), (12.0, 5_000_000.0), (3.0, 3.0)] {
            let ticks = Ticks::new(low, high, false);
            let values: Vec<f64> = ticks.values().collect();
            assert!(
                (2..=9).contains(&values.len()),
                "{low} to {high}: {values:?}"
            );
            assert!(
                values
                    .iter()
                    .all(|v| *v >= low - 1e-9 && *v <= ticks.high + 1e-9)
            );
        }
        let ticks = Ticks::new(0.0, 1.0, false);
        let texts: Vec<String> = ticks.values().map(|value| ticks.text(value)).collect();
        assert_eq!(texts, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let whole = Ticks::new(0.4, 3.6, true);
        let texts: Vec<String> = whole.values().map(|value| whole.text(value)).collect();
        assert_eq!(texts, ["1", "2", "3"]);
    }

    #[test]
    fn a_picture_names_title_axes_units_and_runs() {
        let mut both = Chart {
            lines: Vec::new(),
            ..chart()
        };
        both.absorb("base", &chart());
        both.absorb("naive <1>", &chart().with_mark("bound", 1.5));
        let svg = both.to_svg("d1, seed 1");
        for text in [
            "Hops",
            "share of lookups",
            "base",
            "naive &lt;1&gt;",
            "bound",
            "d1, seed 1",
        ] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text} in {svg}");
        }
        assert_eq!(svg.matches("<rect x=").count(), 4);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn small_print_that_is_too_long_for_a_line_goes_on_in_the_next() {
        let source = "peers=101 ".repeat(30);
        let lines = footer_lines(&source);
        assert_eq!(lines.join(" "), source.trim_end());
        assert!(lines.iter().all(|line| line.len() <= FOOTER_WIDTH));
        let svg = chart().to_svg(&source);
        assert!(lines.len() == 3 && svg.contains("height=\"486\""), "{svg}");
    }

    #[test]
    fn a_chart_without_points_is_still_a_picture() {
        let svg = Chart::new("empty", "Nothing", "x", "y").to_svg("");
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn the_table_of_points_has_one_line_each() {
        let csv = chart().to_csv();
        assert_eq!(
            csv,
            "line,\"hops\",\"share of lookups\"\n\"\",1,0.25\n\"\",2,0.75\n"
        );
    }
}
