//! The versions of RabbitMQ whose answers are recorded, and the version of a node.

use rpc_core::broker::Profile;

use crate::run::Target;

/// A version of RabbitMQ whose answers are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3_10,
    V4_3,
}

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::V3_10, Self::V4_3];

    /// The bundled broker's profile of that version.
    pub(crate) const fn profile(self) -> Profile {
        match self {
            Self::V3_10 => Profile::RabbitMq3_10,
            Self::V4_3 => Profile::RabbitMq4_3,
        }
    }

    const fn start(self) -> &'static str {
        match self {
            Self::V3_10 => "3.10.",
            Self::V4_3 => "4.3.",
        }
    }
}

/// The version that a broker reports.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) text: String,
    /// `None` for one whose answers are not recorded.
    pub(crate) known: Option<Version>,
}

impl Reported {
    /// Asks the broker.
    pub(crate) fn by(target: &Target) -> Self {
        let text = rpc_tests::version_at(&format!("amqp://{}", target.address));
        let known = Version::ALL.into_iter().find(|version| text.starts_with(version.start()));
        Self { text, known }
    }

    /// The recordings to compare with: those of the version, or of the one before it.
    pub(crate) fn nearest(&self) -> Version {
        let is_old = self.text.starts_with("3.");
        self.known.unwrap_or(if is_old { Version::V3_10 } else { Version::V4_3 })
    }
}
