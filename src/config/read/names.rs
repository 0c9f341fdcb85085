//! The names of all registries: each leads to one of them.

use crate::config::problem::{Problem, Problems};
use crate::config::source::Place;
use crate::oci::RegistryHost;

/// Names that are taken, each with who took it.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(RegistryHost, String)>);

impl Names {
    /// Takes a name of the built-in registry `host`. Those are known not to collide with each other.
    pub(super) fn claim_for_builtin(&mut self, name: &RegistryHost, host: &RegistryHost) {
        self.0.push((name.clone(), format!("the built-in registry `{host}`")));
    }

    /// Takes `name` for what stands at `place`, or notes who has it.
    pub(super) fn claim(&mut self, name: &RegistryHost, place: &Place, problems: &Problems) {
        match self.0.iter().find(|(claimed, _)| claimed == name) {
            Some((_, first)) => {
                let message = format!("The name `{name}` is claimed twice: here and by {first}");
                problems.push(
                    Problem::at(place, message).help("Remove it from one of the two; a name leads to one registry"),
                );
            }
            None => self.0.push((name.clone(), format!("{place}"))),
        }
    }
}
