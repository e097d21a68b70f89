//! Replaces generated names and times, which differ in every run, by names that do not.

use std::time::{SystemTime, UNIX_EPOCH};

/// The names of one run of a scenario: `$q` stands for a name nobody else uses, `amq.gen-<1>` for the first queue
/// name the broker made up.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: String,
    /// The names that the broker generated, in order; the number counts within its kind.
    generated: Vec<(String, String)>,
}

impl Names {
    /// The names of the run with that number; prefixes are of one length, so that sizes do not change.
    pub(crate) fn new(run: usize) -> Self {
        Self { prefix: format!("p{:05x}{run:03x}-", std::process::id() & 0xF_FFFF), generated: Vec::new() }
    }

    /// Whether a name is one of this run.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// A line of a scenario with the names of this run.
    pub(crate) fn fill_in(&self, line: &str) -> String {
        let mut line = line.replace('$', &self.prefix);
        for (shown, generated) in &self.generated {
            line = line.replace(shown, generated);
        }
        line
    }

    /// An answer with the names of the scenario.
    pub(crate) fn normalise(&mut self, line: &str) -> String {
        let mut line = line.replace(&self.prefix, "$");
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        for start in ["amq.gen-", "amq.ctag-"] {
            line = self.number(&line, start, |rest| {
                let length = rest.iter().take_while(|byte| is_base64(**byte)).count();
                (length == 22).then_some(length)
            });
        }
        line = self.number(&line, "amq.rabbitmq.reply-to.", |rest| {
            // Two parts in base64, the second of 16 octets.
            let length = rest.iter().take_while(|byte| is_base64(**byte) || b"+/=.".contains(byte)).count();
            let second = rest[..length].split(|byte| *byte == b'.').nth(1);
            second.is_some_and(|second| second.len() == 24 && second.ends_with(b"==")).then_some(length)
        });
        if line.contains(" connection.start ") {
            for property in ["cluster_name", "copyright", "information", "platform", "version"] {
                line = without_value(&line, property);
            }
            line = with_mechanisms_in_order(&line);
        }
        without_now(&line)
    }

    fn number(&mut self, line: &str, start: &str, length: impl Fn(&[u8]) -> Option<usize>) -> String {
        let mut normalised = String::new();
        let mut rest = line;
        while let Some(at) = rest.find(start) {
            let (before, found) = rest.split_at(at);
            normalised.push_str(before);
            let Some(length) = length(&found.as_bytes()[start.len()..]) else {
                normalised.push_str(start);
                rest = &found[start.len()..];
                continue;
            };
            let (generated, behind) = found.split_at(start.len() + length);
            normalised.push_str(&self.shown(start, generated));
            rest = behind;
        }
        normalised + rest
    }

    fn shown(&mut self, start: &str, generated: &str) -> String {
        if let Some((shown, _)) = self.generated.iter().find(|(_, known)| known == generated) {
            return shown.clone();
        }
        let count = self.generated.iter().filter(|(_, known)| known.starts_with(start)).count();
        let shown = format!("{start}<{}>", count + 1);
        self.generated.push((shown.clone(), generated.to_owned()));
        shown
    }
}

/// A node says its mechanisms in any order, another one at each start.
fn with_mechanisms_in_order(line: &str) -> String {
    const START: &str = "mechanisms=\"";
    let Some(at) = line.find(START).map(|at| at + START.len()) else { return line.to_owned() };
    let Some(length) = line[at..].find('"') else { return line.to_owned() };
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    let said = &line[at..at + length];
    let shown = ["PLAIN AMQPLAIN", "ANONYMOUS AMQPLAIN PLAIN"].into_iter().find(|shown| sorted(shown) == sorted(said));
    format!("{}{}{}", &line[..at], shown.unwrap_or(said), &line[at + length..])
}

/// `name: "anything"` as `name: "*"`.
fn without_value(line: &str, name: &str) -> String {
    let start = format!("{name}: \"");
    let Some(at) = line.find(&start).map(|at| at + start.len()) else { return line.to_owned() };
    let Some(length) = line[at..].find('"') else { return line.to_owned() };
    format!("{}*{}", &line[..at], &line[at + length..])
}

/// Timestamps of today as `@now`.
fn without_now(line: &str) -> String {
    const DAY_S: u64 = 24 * 60 * 60;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut parts = line.split('@');
    let mut normalised = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        match part[..digits].parse::<u64>() {
            Ok(time) if time.abs_diff(now) < DAY_S => {
                normalised.push_str("@now");
                normalised.push_str(&part[digits..]);
            }
            _ => {
                normalised.push('@');
                normalised.push_str(part);
            }
        }
    }
    normalised
}
