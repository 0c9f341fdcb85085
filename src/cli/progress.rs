//! Long work of the server as its user sees it: bars for people at a terminal, lines of JSON for everybody else.
//!
//! Which of the two is decided once, before the first event. Results go to stdout, bars to stderr and away again.

use std::collections::HashMap;
use std::io::{self, IsTerminal};

use clap::Args;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use super::Sources;
use super::admin::{Admin, AdminError, Outcome, Question, Server};
use super::error::CliError;
use super::output::{self, Form};
use crate::admin::{Event, SoFar};

const BAR: &str = "{prefix} {wide_bar:.cyan/blue} {bytes}/{total_bytes} {msg}";
const SPINNER: &str = "{prefix} {spinner} {bytes} {msg}";

/// What long work is asked for with.
#[derive(Debug, Args)]
pub(super) struct Following {
    #[command(flatten)]
    server: Server,

    /// How progress is shown: bars and words, or lines of JSON. Without it: as fits a terminal, or what is none
    #[arg(short, long, value_enum, value_name = "FORM", env = "WEIR_OUTPUT")]
    output: Option<Form>,
}

impl Following {
    /// Has the server do something, and shows how it goes.
    pub(super) fn follow(&self, question: &Question<'_>, sources: &Sources) -> Result<Outcome, CliError> {
        self.show(&Admin::of(&self.server, sources)?, question)
    }

    /// The same with the server `admin`, whichever is named.
    pub(super) fn show(&self, admin: &Admin, question: &Question<'_>) -> Result<Outcome, CliError> {
        Ok(follow(admin, question, self.output)?)
    }
}

/// Has the server do something, and shows how it goes: as `form` says, else as fits what stdout is.
fn follow(admin: &Admin, question: &Question<'_>, form: Option<Form>) -> Result<Outcome, AdminError> {
    match form.unwrap_or_else(|| if io::stdout().is_terminal() { Form::Table } else { Form::Json }) {
        Form::Json => admin.follow(question, |_, line| output::result(line)),
        Form::Table => {
            let mut bars = Bars::default();
            let outcome = admin.follow(question, |event, _| {
                if let Some(words) = bars.show(event) {
                    // Bars are out of the way while a line is printed.
                    bars.all.suspend(|| output::result(words));
                }
            });
            bars.all.clear().unwrap_or_default();
            outcome
        }
    }
}

/// A bar for each task, and a line where one was when the task has ended.
#[derive(Debug, Default)]
struct Bars {
    all: MultiProgress,
    tasks: HashMap<String, ProgressBar>,
}

impl Bars {
    /// Moves the bars. What is to be said for good, if anything.
    fn show(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Progress { task, so_far } => {
                self.advance(task, *so_far);
                None
            }
            ended => {
                if let Event::Done { task, .. } | Event::Failed { task, .. } = ended
                    && let Some(bar) = self.tasks.remove(task)
                {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                Some(in_words(ended))
            }
        }
    }

    fn advance(&mut self, task: &str, so_far: SoFar) {
        let bar = self.tasks.entry(task.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_prefix(task.to_owned());
            bar.set_style(style(SPINNER));
            bar
        });
        if let Some(total) = so_far.of_bytes
            && bar.length() != Some(total)
        {
            bar.set_length(total);
            bar.set_style(style(BAR));
        }
        bar.set_position(so_far.bytes);
        bar.set_message(objects(so_far));
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse costs the looks.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What is said for good.
fn in_words(event: &Event) -> String {
    match event {
        Event::Progress { task, so_far } => format!("{task}: {}", amount(*so_far)),
        Event::Done { task, so_far, note: None } => format!("{task}: done, {}", amount(*so_far)),
        Event::Done { task, so_far, note: Some(note) } => format!("{task}: done, {}; {note}", amount(*so_far)),
        Event::Failed { task, reason } => format!("{task}: FAILED: {reason}"),
        Event::End { done, failed: 0 } => format!("All {done} done"),
        Event::End { done, failed } => format!("{done} done, {failed} failed"),
    }
}

fn amount(so_far: SoFar) -> String {
    format!("{}, {}", objects(so_far), HumanBytes(so_far.bytes))
}

fn objects(so_far: SoFar) -> String {
    match so_far.of_objects.filter(|all| *all != so_far.objects) {
        Some(all) => format!("{} of {all} objects", so_far.objects),
        None if so_far.objects == 1 => "1 object".to_owned(),
        None => format!("{} objects", so_far.objects),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_words() {
        let so_far = SoFar { objects: 2, of_objects: Some(3), bytes: 3 << 20, of_bytes: Some(4 << 20) };
        let task = || "nginx".to_owned();
        for (event, words) in [
            (Event::Progress { task: task(), so_far }, "nginx: 2 of 3 objects, 3.00 MiB"),
            (
                Event::Done { task: task(), so_far: SoFar { of_objects: Some(2), ..so_far }, note: None },
                "nginx: done, 2 objects, 3.00 MiB",
            ),
            (
                Event::Done {
                    task: task(),
                    so_far: SoFar { objects: 1, of_objects: None, ..so_far },
                    note: Some("it was here".into()),
                },
                "nginx: done, 1 object, 3.00 MiB; it was here",
            ),
            (Event::Failed { task: task(), reason: "gone".into() }, "nginx: FAILED: gone"),
            (Event::End { done: 2, failed: 0 }, "All 2 done"),
            (Event::End { done: 2, failed: 1 }, "2 done, 1 failed"),
        ] {
            assert_eq!(in_words(&event), words);
        }
    }

    #[test]
    fn bars_come_and_go_with_their_tasks() {
        let mut bars =
            Bars { all: MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()), ..Bars::default() };
        let so_far = SoFar { objects: 1, bytes: 5, ..SoFar::default() };
        assert_eq!(bars.show(&Event::Progress { task: "a".into(), so_far }), None);
        bars.show(&Event::Progress { task: "b".into(), so_far: SoFar { of_bytes: Some(10), ..so_far } });
        assert_eq!((bars.tasks.len(), bars.tasks["b"].length(), bars.tasks["b"].position()), (2, Some(10), 5));
        let said = bars.show(&Event::Failed { task: "a".into(), reason: "gone".into() });
        assert_eq!(said.as_deref(), Some("a: FAILED: gone"));
        assert_eq!(bars.tasks.keys().collect::<Vec<_>>(), ["b"]);
    }
}
