//! The pages: what is answered to which path. HTTP itself is the server's part, or axum's.

use super::{Health, NotReady};

/// Which pages an address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    All,
    Probes,
    Metrics,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Live,
    Ready,
    Startup,
    Metrics,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Page {
    pub(super) const PROBES: [Self; 3] = [Self::Live, Self::Ready, Self::Startup];

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::Startup => "/startupz",
            Self::Metrics => "/metrics",
        }
    }

    /// The page of a path; `None` where the address has none.
    fn at(path: &str, pages: Pages) -> Option<Self> {
        let probes = Self::PROBES.into_iter().filter(|_| pages != Pages::Metrics);
        let metrics = [Self::Metrics].into_iter().filter(|_| pages != Pages::Probes);
        probes.chain(metrics).find(|page| page.path() == path)
    }
}

impl Health {
    /// The answer to a request.
    pub(super) fn respond(&self, pages: Pages, method: &str, path: &str) -> Answer {
        match Page::at(path, pages) {
            None => Answer::text(404, format!("there is no page {path:?} here\n")),
            Some(_) if !matches!(method, "GET" | "HEAD") => Answer::text(405, "GET or HEAD, nothing else\n".to_owned()),
            Some(page) => self.answer(page),
        }
    }

    pub(super) fn answer(&self, page: Page) -> Answer {
        match page {
            Page::Live => Answer::text(200, "alive\n".to_owned()),
            Page::Ready => Answer::of(self.ready(), "ready\n"),
            Page::Startup => Answer::of(self.started(), "started\n"),
            Page::Metrics => match self.render() {
                None => Answer::text(404, "this program has no metrics: Health::metrics gives it some\n".to_owned()),
                Some(body) => {
                    let is_open_metrics = body.trim_end().ends_with("# EOF");
                    let content_type = if is_open_metrics { OPEN_METRICS } else { PROMETHEUS };
                    Answer { status: 200, content_type, body }
                }
            },
        }
    }
}

impl Answer {
    fn text(status: u16, body: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }

    fn of(state: Result<(), NotReady>, ready: &str) -> Self {
        match state {
            Ok(()) => Self::text(200, ready.to_owned()),
            Err(not_ready) => {
                let mut body = "not ready\n".to_owned();
                for reason in not_ready.reasons {
                    body.push_str(&reason);
                    body.push('\n');
                }
                Self::text(503, body)
            }
        }
    }
}

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    fn status(health: &Health, pages: Pages, path: &str) -> u16 {
        health.respond(pages, "GET", path).status
    }

    #[test]
    fn probes_say_what_is_not_ready() {
        let health = Health::new();
        health.check("database", || Err("no connection".to_owned()));
        assert_eq!(status(&health, Pages::All, "/livez"), 200);
        assert_eq!(health.respond(Pages::All, "GET", "/readyz").body, "not ready\ndatabase: no connection\n");
        assert_eq!([status(&health, Pages::All, "/readyz"), status(&health, Pages::All, "/startupz")], [503, 503]);
    }

    #[test]
    fn metrics_are_what_the_exporter_renders() {
        let health = Health::new();
        assert_eq!(status(&health, Pages::All, "/metrics"), 404);
        health.metrics(|| "up 1\n".to_owned());
        let answer = health.respond(Pages::Metrics, "GET", "/metrics");
        assert_eq!((answer.status, answer.content_type, answer.body.as_str()), (200, PROMETHEUS, "up 1\n"));
        health.metrics(|| "up 1\n# EOF\n".to_owned());
        assert_eq!(health.answer(Page::Metrics).content_type, OPEN_METRICS);
    }

    #[test]
    fn an_address_has_its_pages_alone() {
        let health = Health::new();
        health.metrics(String::new);
        assert_eq!(["/livez", "/metrics", "/"].map(|path| status(&health, Pages::Probes, path)), [200, 404, 404]);
        assert_eq!(["/livez", "/metrics", "/"].map(|path| status(&health, Pages::Metrics, path)), [404, 200, 404]);
        assert_eq!(health.respond(Pages::All, "POST", "/livez").status, 405);
        assert_eq!(health.respond(Pages::All, "HEAD", "/livez").status, 200);
    }
}
