//! How long a request may take, and each instance with it.
//! Invariant: what a shop takes long for by its nature has the time for it here too: no instance is given up for work
//! that is as slow at every other one.

use std::time::Duration;

use axum::http::Method;
use service::config::Config;

const AUDIT: &str = "/admin/audit";
const EVENTS: &str = "/events";
/// A shop begins a stream once its watch of the store has begun, and once it has what the page has missed; each may
/// take five seconds.
const EVENTS_BEGIN_IN: Duration = Duration::from_secs(10);
/// What there are copies of, a shop that is well tells from memory.
const BEFORE_A_MIRROR: Duration = Duration::from_millis(500);

/// What the settings say.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    read: Duration,
    write: Duration,
    request: Duration,
    audit: Duration,
}

impl Times {
    pub(crate) fn of(config: &Config) -> Self {
        let gateway = &config.gateway;
        let audit_ms_max = config.shop.audit_ms_max.saturating_add(gateway.read_ms_max);
        Self {
            read: Duration::from_millis(gateway.read_ms_max),
            write: Duration::from_millis(gateway.write_ms_max),
            request: Duration::from_millis(gateway.request_ms_max),
            // The shop ends it in time, and says so.
            audit: Duration::from_millis(audit_ms_max),
        }
    }

    /// Of a request as a whole, however many instances are asked.
    pub(super) fn whole(&self, method: &Method, path: &str) -> Duration {
        if is_audit(method, path) {
            self.request.max(self.audit)
        } else {
            self.request
        }
    }

    /// Of one instance, before another one is asked.
    pub(super) fn each(&self, method: &Method, path: &str, repeatable: bool) -> Duration {
        if is_audit(method, path) {
            return self.audit;
        }
        match (method.is_safe(), repeatable) {
            (true, _) if path == EVENTS => self.read.max(EVENTS_BEGIN_IN),
            (true, _) => self.read,
            (false, true) => self.write,
            // Nobody else may be asked, so it gets all the time there is.
            (false, false) => self.request,
        }
    }

    /// Of a shop, where another one was late and a mirror can answer too.
    pub(super) fn before_a_mirror(&self) -> Duration {
        self.read.min(BEFORE_A_MIRROR)
    }
}

fn is_audit(method: &Method, path: &str) -> bool {
    method.is_safe() && path == AUDIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_has_the_time_for_it() {
        let times = Times::of(&Config::default());
        let seconds = |path: &str| {
            let (whole, each) = (
                times.whole(&Method::GET, path),
                times.each(&Method::GET, path, true),
            );
            (whole.as_secs(), each.as_secs())
        };
        assert_eq!(seconds("/products"), (15, 2));
        assert_eq!(seconds("/events"), (15, 10));
        assert_eq!(seconds("/admin/audit"), (122, 122));
        assert_eq!(times.whole(&Method::POST, "/admin/audit"), times.request);
        assert_eq!(times.each(&Method::POST, "/orders", true), times.write);
        assert_eq!(times.each(&Method::POST, "/orders", false), times.request);
    }
}
