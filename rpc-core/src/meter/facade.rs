//! Hands events to the recorder that the program has installed.

use std::{sync::LazyLock, time::Duration};

use metrics::{Key, KeyName, Label, Level, Metadata};

use super::{
    Event, Of,
    table::{ALL, BLOCKED, BLOCKED_TIME, Kind, Metric, counter_of},
};
use crate::layer::names;

/// Of every metric: a recorder may filter by it.
pub(crate) static METADATA: Metadata<'static> = Metadata::new("rpc_core", Level::INFO, Some("rpc_core"));

pub(super) fn count(event: Event, of: Of) {
    let mut labels = Vec::with_capacity(2);
    match of {
        Of::Method(service, method) => labels.push(Label::new(names::METHOD, format!("{service}/{method}"))),
        Of::Service(service) => labels.push(Label::from_static_parts(names::SERVICE, service)),
        Of::Nothing => {}
    }
    if let Event::TimedOut(stage) = event {
        labels.push(Label::from_static_parts(names::STAGE, stage.name()));
    }
    let key = Key::from_parts(counter_of(event).name, labels);
    metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(1));
}

pub(super) fn note_blocked(ended: Option<Duration>) {
    static GAUGE: LazyLock<Key> = LazyLock::new(|| Key::from_static_name(BLOCKED.name));
    static TIME: LazyLock<Key> = LazyLock::new(|| Key::from_static_name(BLOCKED_TIME.name));
    metrics::with_recorder(|recorder| {
        let gauge = recorder.register_gauge(&GAUGE, &METADATA);
        match ended {
            None => gauge.increment(1.0),
            Some(time) => {
                gauge.decrement(1.0);
                recorder.register_histogram(&TIME, &METADATA).record(time);
            }
        }
    });
}

/// Describes every metric to the recorder that is installed.
pub(crate) fn describe() {
    metrics::with_recorder(|recorder| {
        for Metric { name, kind, unit, description } in ALL {
            let (name, unit, description) = (KeyName::from_const_str(name), Some(unit), description.into());
            match kind {
                Kind::Counter => recorder.describe_counter(name, unit, description),
                Kind::Gauge => recorder.describe_gauge(name, unit, description),
                Kind::Histogram => recorder.describe_histogram(name, unit, description),
            }
        }
    });
}
