//! The few elements that charts are made of.

use std::fmt::Write as _;

/// Colours and letters of all charts; those of dark surroundings replace the others where a viewer has them.
///
/// The colours of series are those of Okabe and Ito, which people with any kind of colour vision tell apart.
const STYLE: &str = "\
.ground{fill:#fff}\
text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;fill:#1b1f24}\
.title{font-size:17px;font-weight:600}\
.quiet{fill:#57606a}.strong{font-weight:600}\
.grid{stroke:#d0d7de;stroke-width:1}.axis{stroke:#57606a;stroke-width:1.5}\
.ahead{fill:#0072b2}.behind{fill:#d55e00}.peer{fill:#8c959f;stroke:#fff;stroke-width:1}\
.line{fill:none;stroke-width:2.25;stroke-linejoin:round}\
.s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#009e73}.s3{stroke:#cc79a7}.s4{stroke:#b07d00}.s5{stroke:#57606a}\
.m0{fill:#0072b2}.m1{fill:#d55e00}.m2{fill:#009e73}.m3{fill:#cc79a7}.m4{fill:#b07d00}.m5{fill:#57606a}\
@media(prefers-color-scheme:dark){\
.ground{fill:#0d1117}text{fill:#e6edf3}.quiet{fill:#9da7b3}\
.grid{stroke:#30363d}.axis{stroke:#9da7b3}\
.ahead{fill:#56b4e9}.behind{fill:#ff8c42}.peer{fill:#7d8590;stroke:#0d1117}\
.s0{stroke:#56b4e9}.s1{stroke:#ff8c42}.s2{stroke:#2fc79a}.s3{stroke:#e29ac4}.s4{stroke:#f0e442}.s5{stroke:#9da7b3}\
.m0{fill:#56b4e9}.m1{fill:#ff8c42}.m2{fill:#2fc79a}.m3{fill:#e29ac4}.m4{fill:#f0e442}.m5{fill:#9da7b3}}";

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that grows by elements.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    title: String,
    description: String,
    body: String,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64, title: &str, description: &str) -> Self {
        Svg {
            width,
            height,
            title: escaped(title),
            description: escaped(description),
            body: String::new(),
        }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(super) fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str, title: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" class=\"{class}\"><title>{}</title></rect>",
            escaped(title)
        ));
    }

    pub(super) fn dot(&mut self, x: f64, y: f64, radius: f64, class: &str, title: &str) {
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"><title>{}</title></circle>",
            escaped(title)
        ));
    }

    /// A line through points; `dashes` as SVG has them, empty for none.
    pub(super) fn path(&mut self, points: &[(f64, f64)], class: &str, dashes: &str) {
        let listed: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(
            "<polyline points=\"{}\" class=\"{class}\" stroke-dasharray=\"{dashes}\"/>",
            listed.join(" ")
        ));
    }

    pub(super) fn finish(self) -> String {
        let Svg {
            width,
            height,
            title,
            description,
            body,
        } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\" aria-labelledby=\"title description\">\n<title id=\"title\">{title}</title>\n\
             <desc id=\"description\">{description}</desc>\n<style>{STYLE}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" class=\"ground\"/>\n{body}</svg>\n"
        )
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes what is written");
    }
}

/// Text that may stand between tags and in attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{Anchor, Svg};

    #[test]
    fn what_markup_means_something_by_is_escaped() {
        let mut svg = Svg::new(10.0, 10.0, "a < b", "\"c\" & d");
        svg.text(0.0, 0.0, "quiet", Anchor::Start, "p99 < 1 & > 0");
        let text = svg.finish();
        assert!(text.contains("<title id=\"title\">a &lt; b</title>"), "{text}");
        assert!(text.contains("&quot;c&quot; &amp; d"), "{text}");
        assert!(text.contains(">p99 &lt; 1 &amp; &gt; 0<"), "{text}");
    }
}
