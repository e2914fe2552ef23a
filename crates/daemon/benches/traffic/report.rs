//! Prints what was judged, and remembers what exceeded its bound.

/// The judgements of a run.
#[derive(Default)]
pub struct Verdicts {
    exceeded: Vec<String>,
}

impl Verdicts {
    /// A bound: `value` may be at most `limit`. What is compared stands in `what`.
    pub fn at_most(&mut self, what: &str, value: f64, limit: f64) {
        self.judge(what, value, limit, value <= limit, "at most");
    }

    /// A bound: `value` has to be `limit` at least.
    pub fn at_least(&mut self, what: &str, value: f64, limit: f64) {
        self.judge(what, value, limit, value >= limit, "at least");
    }

    /// Something that could not be compared counts as not kept.
    pub fn not_judged(&mut self, what: &str) {
        println!("    NOT JUDGED  {what}");
        self.exceeded.push(format!("{what}: not judged"));
    }

    fn judge(&mut self, what: &str, value: f64, limit: f64, within: bool, word: &str) {
        let mark = if within { "within" } else { "EXCEEDED" };
        let line = format!("{what}: {}, {word} {}", digits(value), digits(limit));
        println!("    {mark:>10}  {line}");
        if !within {
            self.exceeded.push(line);
        }
    }

    /// The last words; whether all bounds were kept.
    pub fn conclude(&self) -> bool {
        if self.exceeded.is_empty() {
            println!("\nall bounds are kept");
        } else {
            println!("\n{} bounds are not kept:", self.exceeded.len());
            self.exceeded.iter().for_each(|line| println!("  {line}"));
        }
        self.exceeded.is_empty()
    }
}

/// Three digits that say something.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A count with spaces between thousands.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
