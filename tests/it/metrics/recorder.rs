//! A recorder that keeps what this process measures.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Begins to measure for one case, and forgets what others have measured: the same case on another broker has services of the same
/// names.
pub(crate) async fn measure() -> tokio::sync::MutexGuard<'static, ()> {
    static TURNS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = TURNS.lock().await;
    kept().values.clear();
    turn
}

/// The metrics of that name whose labels name this service; all of them for `None`.
pub(crate) fn measured(name: &str, service: Option<&str>) -> Vec<Measured> {
    let is_of = |labels: &Labels| service.is_none_or(|service| labels.values().any(|value| names(value, service)));
    let kept = kept();
    let found = kept.values.iter().filter(|((known, labels), _)| known == name && is_of(labels));
    found.map(|((_, labels), value)| Measured { labels: labels.clone(), value: value.clone() }).collect()
}

fn names(value: &str, service: &str) -> bool {
    value.split(['/', ':', '.']).any(|part| part == service)
}

/// The only one of them.
pub(crate) fn only(name: &str, service: Option<&str>) -> Measured {
    let mut found = measured(name, service);
    assert_eq!(found.len(), 1, "{name} of {service:?}: {found:#?}");
    found.remove(0)
}

/// How often the counters of that name have counted for this service, whatever their other labels.
pub(crate) fn counted(name: &str, service: Option<&str>) -> u64 {
    measured(name, service).iter().map(Measured::count).sum()
}

/// Every value of every label.
pub(crate) fn label_values() -> Vec<String> {
    kept().values.keys().flat_map(|(_, labels)| labels.values().cloned()).collect()
}

/// The kind and the unit of a metric that was described.
pub(crate) fn described(name: &str) -> Option<(&'static str, Option<Unit>)> {
    kept().described.get(name).copied()
}

type Labels = BTreeMap<String, String>;

/// A metric as it stands.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) labels: Labels,
    value: Value,
}

impl Measured {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// Of a counter the count, of a histogram the number of its times.
    pub(crate) fn count(&self) -> u64 {
        match &self.value {
            Value::Counter(count) => count.load(Ordering::SeqCst),
            Value::Gauge(_) => panic!("a gauge has no count"),
            Value::Times(times) => times.0.lock().unwrap().len() as u64,
        }
    }

    pub(crate) fn level(&self) -> f64 {
        let Value::Gauge(bits) = &self.value else { panic!("it is no gauge") };
        f64::from_bits(bits.load(Ordering::SeqCst))
    }

    pub(crate) fn seconds(&self) -> Vec<f64> {
        let Value::Times(times) = &self.value else { panic!("it is no histogram") };
        times.0.lock().unwrap().clone()
    }
}

#[derive(Debug, Clone)]
enum Value {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Times(Arc<Times>),
}

#[derive(Debug, Default)]
struct Times(Mutex<Vec<f64>>);

impl HistogramFn for Times {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

#[derive(Default)]
struct Kept {
    values: HashMap<(String, Labels), Value>,
    described: HashMap<String, (&'static str, Option<Unit>)>,
}

/// The recorder of the process is installed when it is first asked for.
fn kept() -> MutexGuard<'static, Kept> {
    static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(|| {
        assert!(metrics::set_global_recorder(Keeper).is_ok(), "no other one is installed");
        Mutex::default()
    });
    KEPT.lock().unwrap()
}

struct Keeper;

impl Keeper {
    fn value(key: &Key, new: impl FnOnce() -> Value) -> Value {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        kept().values.entry((key.name().to_owned(), labels)).or_insert_with(new).clone()
    }
}

impl Recorder for Keeper {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        kept().described.insert(name.as_str().to_owned(), ("counter", unit));
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        kept().described.insert(name.as_str().to_owned(), ("gauge", unit));
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        kept().described.insert(name.as_str().to_owned(), ("histogram", unit));
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match Self::value(key, || Value::Counter(Arc::default())) {
            Value::Counter(count) => Counter::from_arc(count),
            other => panic!("{key} was {other:?}"),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match Self::value(key, || Value::Gauge(Arc::default())) {
            Value::Gauge(level) => Gauge::from_arc(level),
            other => panic!("{key} was {other:?}"),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match Self::value(key, || Value::Times(Arc::default())) {
            Value::Times(times) => Histogram::from_arc(times),
            other => panic!("{key} was {other:?}"),
        }
    }
}
