//! Scenario files: what is sent, and what RabbitMQ answered.
//!
//! ```text
//!  == queue/passive-missing              a scenario
//!  # A comment.
//!  > A1 queue.declare queue=$q passive   connection A, channel 1 sends
//!  < A1 channel.close 404 "NOT_FOUND …"  RabbitMQ answers
//!  differs: why                          only where the bundled broker answers otherwise on purpose:
//!  <~ A1 …                               its answer, in place of the lines above; `<~ nothing` for none
//! ```
//!
//! Lines that begin with `>+` are sent together with the next one, in one write.

use std::{fs, io, mem, path::PathBuf};

/// One conversation.
#[derive(Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Why the bundled broker answers otherwise.
    pub(crate) differs: Option<String>,
    pub(crate) steps: Vec<Step>,
}

/// Commands that are sent at once, and the answers to them.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) commands: Vec<String>,
    pub(crate) rabbitmq: Vec<String>,
    /// The bundled broker's answers, where they differ.
    pub(crate) bundled: Option<Vec<String>>,
    /// The line of the file behind the last command.
    end: usize,
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
            let step = scenario.steps.last_mut();
            if let Some(command) = line.strip_prefix(">+ ") {
                commands.push(command.to_owned());
            } else if let Some(command) = line.strip_prefix("> ") {
                commands.push(command.to_owned());
                scenario.steps.push(Step { commands: mem::take(&mut commands), end: at + 1, ..Default::default() });
            } else if let Some(answer) = line.strip_prefix("< ") {
                step.ok_or_else(|| malformed("nothing was sent"))?.rabbitmq.push(answer.to_owned());
            } else if let Some(answer) = line.strip_prefix("<~ ") {
                let bundled = &mut step.ok_or_else(|| malformed("nothing was sent"))?.bundled;
                bundled.get_or_insert_default().extend((answer != "nothing").then(|| answer.to_owned()));
            } else if let Some(reason) = line.strip_prefix("differs: ") {
                scenario.differs = Some(reason.to_owned());
            } else {
                return Err(malformed("neither a command nor an answer"));
            }
        }
        Ok(Self { path, lines, scenarios })
    }

    /// Writes the file with new answers of RabbitMQ: for each scenario those of its steps, `None` to keep the old.
    pub(crate) fn record(&self, answers: &[Option<Vec<Vec<String>>>]) -> io::Result<()> {
        let mut text = String::new();
        let mut from = 0;
        for (scenario, answers) in self.scenarios.iter().zip(answers) {
            for (at, step) in scenario.steps.iter().enumerate() {
                self.copy(from..step.end, &mut text);
                from = step.end;
                let answers = answers.as_ref().map_or(&step.rabbitmq, |answers| &answers[at]);
                answers.iter().for_each(|answer| text.push_str(&format!("< {answer}\n")));
            }
        }
        self.copy(from..self.lines.len(), &mut text);
        fs::write(&self.path, text)
    }

    fn copy(&self, lines: std::ops::Range<usize>, text: &mut String) {
        for line in self.lines[lines].iter().filter(|line| !line.starts_with("< ")) {
            text.push_str(line);
            text.push('\n');
        }
    }
}
