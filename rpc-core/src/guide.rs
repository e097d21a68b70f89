//! The guide, in chapters. The same text is in `docs/` beside the crate's manifest.
//!
//! | chapter | answers |
//! |---|---|
//! | [Getting started](getting_started) | How do I write a service, serve it and call it? |
//! | [Services and methods](services) | What can a trait say? |
//! | [Errors and retries](errors) | How can a call fail, and what may have happened then? |
//! | [Deadlines and cancellation](deadlines) | How long does a call take at most, and what stops a handler? |
//! | [Layers](layers) | What stands around every call: authentication, limits, retries, measurements? |
//! | [Traces](traces) | How does one trace follow a request through all services? |
//! | [Metrics](metrics) | Which calls and events are counted and timed, and how does Prometheus get the numbers? |
//! | [Retries](retries) | Which calls are sent again, when, and how many? |
//! | [Once-only execution](once) | How is a request that arrives twice executed once, over several processes? |
//! | [Workers and shutdown](workers) | How is load shared, when is a request acknowledged, how does a worker stop? |
//! | [Deployment](deployment) | How is a worker configured, probed, and stopped by its supervisor? |
//! | [Testing](testing) | How do I test handlers, callers, and failures? |
//! | [Guarantees](guarantees) | What is promised, and which test shows it? |
//! | [RabbitMQ](rabbitmq) | Which queue kinds, clusters and limits? |
//! | [Who may do what](permissions) | Which rights does each role need, and what can it not do? |
//! | [The wire contract](wire) | How do other languages take part, and how does each type look? |
//! | [The bundled broker](broker) | What can it do, and what not? |
//! | [Performance](performance) | How fast is it, and what costs? |
//! | [Evolution](evolution) | Which change breaks which callers? |
//! | [Questions](faq) | The questions that new users ask first. |

/// A chapter: the file, and what its links lead to here. In the repository the file's own definitions lead to other files; the
/// first definition of a label counts, so these go first.
///
/// Its examples are compiled when the features they use are on. It is rendered in any case.
macro_rules! chapter {
    ($name:ident, $file:literal, $($feature:literal),+) => {
        #[doc = "[started]: crate::guide::getting_started"]
        #[doc = "[services]: crate::guide::services"]
        #[doc = "[errors]: crate::guide::errors"]
        #[doc = "[deadlines]: crate::guide::deadlines"]
        #[doc = "[layers]: crate::guide::layers"]
        #[doc = "[traces]: crate::guide::traces"]
        #[doc = "[metrics]: crate::guide::metrics"]
        #[doc = "[retries]: crate::guide::retries"]
        #[doc = "[once]: crate::guide::once"]
        #[doc = "[workers]: crate::guide::workers"]
        #[doc = "[deployment]: crate::guide::deployment"]
        #[doc = "[testing]: crate::guide::testing"]
        #[doc = "[guarantees]: crate::guide::guarantees"]
        #[doc = "[rabbitmq]: crate::guide::rabbitmq"]
        #[doc = "[permissions]: crate::guide::permissions"]
        #[doc = "[wire]: crate::guide::wire"]
        #[doc = "[broker]: crate::guide::broker"]
        #[doc = "[performance]: crate::guide::performance"]
        #[doc = "[evolution]: crate::guide::evolution"]
        #[doc = "[faq]: crate::guide::faq"]
        #[doc = "[`AckPolicy`]: crate::AckPolicy"]
        #[doc = "[`Call`]: crate::Call"]
        #[doc = "[`CallError`]: crate::CallError"]
        #[doc = "[`ClientOptions`]: crate::ClientOptions"]
        #[doc = "[`Connection::open`]: crate::Connection::open"]
        #[doc = "[`Context`]: crate::Context"]
        #[doc = "[`Context::for_test`]: crate::Context::for_test"]
        #[doc = "[`DedupeOptions`]: crate::DedupeOptions"]
        #[doc = "[`Error`]: crate::Error"]
        #[doc = "[`PoolHandle`]: crate::PoolHandle"]
        #[doc = "[`PoolMonitor`]: crate::PoolMonitor"]
        #[doc = "[`WorkerPool`]: crate::WorkerPool"]
        #[doc = "[`WorkerPool::declare`]: crate::WorkerPool::declare"]
        #[doc = "[`WorkerPool::inline`]: crate::WorkerPool::inline"]
        #[cfg_attr(feature = "macros", doc = "[`service`]: macro@crate::service")]
        #[cfg_attr(not(feature = "macros"), doc = "[`service`]: crate::guide::services")]
        #[cfg_attr(feature = "broker", doc = "[`Broker::start`]: crate::broker::Broker::start")]
        #[cfg_attr(feature = "broker", doc = "[`BrokerBuilder`]: crate::broker::BrokerBuilder")]
        #[cfg_attr(feature = "broker", doc = "[`Faults`]: crate::broker::Faults")]
        #[cfg_attr(not(feature = "broker"), doc = "[`Broker::start`]: crate::guide::broker")]
        #[cfg_attr(not(feature = "broker"), doc = "[`BrokerBuilder`]: crate::guide::broker")]
        #[cfg_attr(not(feature = "broker"), doc = "[`Faults`]: crate::guide::broker")]
        #[doc = ""]
        #[cfg_attr(any(not(doctest), all($(feature = $feature),+)), doc = include_str!($file))]
        pub mod $name {}
    };
}

chapter!(getting_started, "../docs/getting-started.md", "macros", "broker");
chapter!(services, "../docs/services.md", "macros");
chapter!(errors, "../docs/errors.md", "macros");
chapter!(deadlines, "../docs/deadlines.md", "macros");
chapter!(layers, "../docs/layers.md", "macros");
chapter!(traces, "../docs/traces.md", "macros");
chapter!(metrics, "../docs/metrics.md", "macros");
chapter!(retries, "../docs/retries.md", "macros");
chapter!(once, "../docs/once.md", "macros");
chapter!(workers, "../docs/workers.md", "macros");
chapter!(deployment, "../docs/deployment.md", "macros");
chapter!(testing, "../docs/testing.md", "macros", "broker");
chapter!(guarantees, "../docs/guarantees.md", "macros");
chapter!(rabbitmq, "../docs/rabbitmq.md", "macros");
chapter!(permissions, "../docs/permissions.md", "macros");
chapter!(wire, "../docs/wire.md", "macros");
chapter!(broker, "../docs/broker.md", "broker");
chapter!(performance, "../docs/performance.md", "macros");
chapter!(evolution, "../docs/evolution.md", "macros");
chapter!(faq, "../docs/faq.md", "macros");
