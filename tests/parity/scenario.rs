//! Scenario files: what is sent, and what RabbitMQ answered.
//!
//! ```text
//!  == queue/passive-missing              a scenario
//!  # A comment.
//!  > A1 queue.declare queue=$q passive   connection A, channel 1 sends
//!  < A1 channel.close 404 "NOT_FOUND …"  RabbitMQ 3.10 answers
//!  4.3< A1 …                             RabbitMQ 4.3's answer, if it is another one; `4.3< nothing` for none
//!  differs: why                          only where the bundled broker answers otherwise on purpose:
//!  <~ A1 …                               its answer, in place of the lines above; `<~ nothing` for none
//!  differs 4.3: why                      the same for its profile of RabbitMQ 4.3
//!  4.3<~ A1 …                            needed only where that is neither RabbitMQ 4.3's nor the other profile's
//! ```
//!
//! Lines that begin with `>+` are sent together with the next one, in one write.

use std::{fs, io, mem, path::PathBuf};

use crate::version::Version;

/// The broker that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answerer {
    RabbitMq(Version),
    /// The bundled broker with the profile of a version.
    Bundled(Version),
}

/// One conversation.
#[derive(Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Why the bundled broker answers otherwise.
    differs: Option<String>,
    /// The same for its profile of RabbitMQ 4.3, if that has another reason.
    differs_4_3: Option<String>,
    pub(crate) steps: Vec<Step>,
}

/// Commands that are sent at once, and the answers to them.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) commands: Vec<String>,
    rabbitmq: Answers,
    /// The bundled broker's answers, where they differ.
    bundled: Answers,
    /// The line of the file behind the last command.
    end: usize,
}

/// Answers by version.
#[derive(Debug, Clone, Default)]
struct Answers {
    v3_10: Option<Vec<String>>,
    v4_3: Option<Vec<String>>,
}

impl Answers {
    fn add(&mut self, version: Version, answer: &str) {
        let answers = self.of(version).get_or_insert_default();
        answers.extend((answer != NOTHING).then(|| answer.to_owned()));
    }

    const fn of(&mut self, version: Version) -> &mut Option<Vec<String>> {
        match version {
            Version::V3_10 => &mut self.v3_10,
            Version::V4_3 => &mut self.v4_3,
        }
    }
}

impl Scenario {
    /// Why the bundled broker answers otherwise than that version of RabbitMQ; `None` if it does not.
    pub(crate) fn difference(&self, version: Version) -> Option<&str> {
        if !self.steps.iter().any(|step| step.differs(version)) {
            return None;
        }
        let reason = self.differs.as_deref();
        let own = self.differs_4_3.as_deref().filter(|_| version == Version::V4_3);
        Some(own.or(reason).unwrap_or_default())
    }

    /// Whether a reason is given for a difference that does not exist.
    pub(crate) fn has_idle_reason(&self) -> bool {
        let [differs, differs_4_3] = [Version::V3_10, Version::V4_3].map(|version| self.difference(version).is_some());
        (self.differs_4_3.is_some() && !differs_4_3)
            || (self.differs.is_some() && !differs && (!differs_4_3 || self.differs_4_3.is_some()))
    }
}

impl Step {
    /// The answers that are to come.
    pub(crate) fn expected(&self, answerer: Answerer) -> &[String] {
        let own = match answerer {
            Answerer::RabbitMq(Version::V3_10) => &self.rabbitmq.v3_10,
            Answerer::RabbitMq(Version::V4_3) => {
                self.rabbitmq.v4_3.as_ref().map_or(&self.rabbitmq.v3_10, |_| &self.rabbitmq.v4_3)
            }
            Answerer::Bundled(version) => {
                let own = match (version, &self.rabbitmq.v4_3, &self.bundled.v4_3) {
                    (Version::V4_3, _, Some(_)) => &self.bundled.v4_3,
                    (Version::V4_3, Some(_), None) => &None,
                    _ => &self.bundled.v3_10,
                };
                if own.is_none() {
                    return self.expected(Answerer::RabbitMq(version));
                }
                own
            }
        };
        own.as_deref().unwrap_or_default()
    }

    fn differs(&self, version: Version) -> bool {
        self.expected(Answerer::Bundled(version)) != self.expected(Answerer::RabbitMq(version))
    }

    /// All lines of the file that say something of this step.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        let answers = [&self.rabbitmq.v3_10, &self.rabbitmq.v4_3, &self.bundled.v3_10, &self.bundled.v4_3];
        self.commands.iter().chain(answers.into_iter().flatten().flatten())
    }

    /// RabbitMQ's answers as lines of the file, with those of one version replaced.
    fn recorded(&self, version: Version, answers: Option<&Vec<String>>) -> impl Iterator<Item = String> {
        let mut all = self.rabbitmq.clone();
        if let Some(answers) = answers {
            *all.of(version) = Some(answers.clone());
        }
        let Answers { v3_10, v4_3 } = all;
        let v3_10 = v3_10.unwrap_or_default();
        let own = v4_3.filter(|v4_3| *v4_3 != v3_10);
        let own = own.map(|own| if own.is_empty() { vec![NOTHING.to_owned()] } else { own });
        let own = own.into_iter().flatten().map(|answer| format!("4.3< {answer}\n"));
        v3_10.into_iter().map(|answer| format!("< {answer}\n")).chain(own)
    }
}

/// A file of scenarios.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    lines: Vec<String>,
    pub(crate) scenarios: Vec<Scenario>,
}

impl File {
    /// All of them, by name.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("parity");
        let mut paths: Vec<_> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    fn read(path: PathBuf) -> io::Result<Self> {
        let lines: Vec<_> = fs::read_to_string(&path)?.lines().map(str::to_owned).collect();
        let mut scenarios = Vec::<Scenario>::new();
        let mut commands = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let malformed = |what| io::Error::other(format!("{}:{}: {what}", path.display(), at + 1));
            if let Some(name) = line.strip_prefix("== ") {
                scenarios.push(Scenario { name: name.trim().to_owned(), ..Default::default() });
                continue;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let scenario = scenarios.last_mut().ok_or_else(|| malformed("no scenario has begun"))?;
            if let Some(command) = line.strip_prefix(">+ ") {
                commands.push(command.to_owned());
            } else if let Some(command) = line.strip_prefix("> ") {
                commands.push(command.to_owned());
                scenario.steps.push(Step { commands: mem::take(&mut commands), end: at + 1, ..Default::default() });
            } else if let Some(reason) = line.strip_prefix("differs: ") {
                scenario.differs = Some(reason.to_owned());
            } else if let Some(reason) = line.strip_prefix("differs 4.3: ") {
                scenario.differs_4_3 = Some(reason.to_owned());
            } else {
                let step = scenario.steps.last_mut().ok_or_else(|| malformed("nothing was sent"))?;
                let (version, answer) = match line.strip_prefix("4.3") {
                    Some(answer) => (Version::V4_3, answer),
                    None => (Version::V3_10, line.as_str()),
                };
                if let Some(answer) = answer.strip_prefix("< ") {
                    step.rabbitmq.add(version, answer);
                } else if let Some(answer) = answer.strip_prefix("<~ ") {
                    step.bundled.add(version, answer);
                } else {
                    return Err(malformed("neither a command nor an answer"));
                }
            }
        }
        Ok(Self { path, lines, scenarios })
    }

    /// Writes the file with new answers of RabbitMQ: for each scenario those of its steps, `None` to keep the old.
    pub(crate) fn record(&self, version: Version, answers: &[Option<Vec<Vec<String>>>]) -> io::Result<()> {
        let mut text = String::new();
        let mut from = 0;
        for (scenario, answers) in self.scenarios.iter().zip(answers) {
            for (at, step) in scenario.steps.iter().enumerate() {
                self.copy(from..step.end, &mut text);
                from = step.end;
                text.extend(step.recorded(version, answers.as_ref().map(|answers| &answers[at])));
            }
        }
        self.copy(from..self.lines.len(), &mut text);
        fs::write(&self.path, text)
    }

    fn copy(&self, lines: std::ops::Range<usize>, text: &mut String) {
        let is_kept = |line: &&String| !line.starts_with("< ") && !line.starts_with("4.3< ");
        for line in self.lines[lines].iter().filter(is_kept) {
            text.push_str(line);
            text.push('\n');
        }
    }
}

const NOTHING: &str = "nothing";
