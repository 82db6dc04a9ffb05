//! Which node to ask. A node that failed rests for a while, longer each time, but is asked again when all rest.
//! Writes go to the node that answers called the leader; reads stay with a node that works.
//! It sends nothing itself and must not know what a request does.

use reqwest::Url;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::time::{Duration, Instant};

/// Addresses learned from answers on top of the given ones: more than any sound cluster has.
const ENDPOINTS_MAX: usize = 32;
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(5);
const NOBODY: usize = usize::MAX;

/// Where reads go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// To one node, as long as it works.
    #[default]
    Sticky,
    /// To all nodes in turn.
    Spread,
    /// To the leader, once an answer has named it.
    Leader,
}

/// Who should be asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefer {
    Leader,
    Sticky,
    Next,
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) index: usize,
    /// `http://host:port`
    pub(crate) base: String,
    failures: AtomicU32,
    rests_until_ms: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Endpoints {
    list: RwLock<Vec<Arc<Endpoint>>>,
    leader: AtomicUsize,
    sticky: AtomicUsize,
    next: AtomicUsize,
    epoch: Instant,
}

/// The nodes that one call has been sent to, so that it goes round all of them before it repeats one.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    this_round: u64,
    /// Those that it is sent to no more.
    given_up: u64,
}

impl Tried {
    /// Another attempt there would find the same fault.
    pub(crate) fn give_up(&mut self, endpoint: &Endpoint) {
        self.given_up |= 1 << endpoint.index;
    }
}

impl Endpoints {
    /// `bases` is not empty. `start` spreads clients over the nodes.
    pub(crate) fn new(bases: Vec<String>, start: usize) -> Self {
        assert!(!bases.is_empty(), "a client has at least one endpoint");
        let start = start % bases.len();
        let list = bases.into_iter().take(ENDPOINTS_MAX).enumerate();
        Self {
            list: RwLock::new(list.map(|(index, base)| Endpoint::new(index, base)).collect()),
            leader: AtomicUsize::new(NOBODY),
            sticky: AtomicUsize::new(start),
            next: AtomicUsize::new(start),
            epoch: Instant::now(),
        }
    }

    /// Some node must be left that the call has not given up.
    pub(crate) fn choose(&self, prefer: Prefer, tried: &mut Tried) -> Arc<Endpoint> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let all = u64::MAX >> (64 - list.len());
        if (tried.this_round | tried.given_up) & all == all {
            tried.this_round = 0;
        }
        let leader = self.leader.load(Ordering::Relaxed);
        let sticky = self.sticky.load(Ordering::Relaxed) % list.len();
        let first = match prefer {
            Prefer::Leader if leader < list.len() => leader,
            Prefer::Leader | Prefer::Sticky => sticky,
            Prefer::Next => self.next.fetch_add(1, Ordering::Relaxed) % list.len(),
        };
        let now_ms = self.now_ms();
        let given_up = tried.given_up;
        let in_order = || {
            let circle = (0..list.len()).map(|offset| &list[(first + offset) % list.len()]);
            circle.filter(|endpoint| given_up & (1 << endpoint.index) == 0)
        };
        let mut awake = in_order().filter(|endpoint| endpoint.rest_ms(now_ms) == 0);
        // A new round begins early when only resting nodes are left: a dead one costs time, a live one does not.
        let chosen = match awake
            .clone()
            .find(|endpoint| tried.this_round & (1 << endpoint.index) == 0)
        {
            Some(untried) => untried,
            None => match awake.next() {
                Some(again) => {
                    tried.this_round = 0;
                    again
                }
                None => in_order()
                    .filter(|endpoint| tried.this_round & (1 << endpoint.index) == 0)
                    .min_by_key(|endpoint| endpoint.rest_ms(now_ms))
                    .expect("a full round was forgotten above, so one node is untried"),
            },
        };
        tried.this_round |= 1 << chosen.index;
        chosen.clone()
    }

    /// It served: reads stay with it.
    pub(crate) fn served(&self, endpoint: &Endpoint) {
        if self.sticky.load(Ordering::Relaxed) != endpoint.index {
            self.sticky.store(endpoint.index, Ordering::Relaxed);
        }
    }

    /// It could not be reached, or did not answer in time.
    pub(crate) fn failed(&self, endpoint: &Endpoint) {
        self.not_leader(endpoint);
        let now_ms = self.now_ms();
        if endpoint.rest_ms(now_ms) > 0 {
            // Many calls that were under way together failed together: that is one failure.
            return;
        }
        let failures = endpoint.failures.fetch_add(1, Ordering::Relaxed).min(10);
        let rest = REST_MAX.min(REST_MIN * 2_u32.pow(failures));
        endpoint
            .rests_until_ms
            .store(now_ms + millis(rest), Ordering::Relaxed);
    }

    /// It said that it knows no leader, so it is none.
    pub(crate) fn not_leader(&self, endpoint: &Endpoint) {
        let exchanged =
            self.leader
                .compare_exchange(endpoint.index, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
        if exchanged.is_ok() {
            tracing::debug!(endpoint = endpoint.base, "this node leads no more");
        }
    }

    /// An answer named the leader's client address. Unknown addresses are remembered if they look like one.
    pub(crate) fn leader_is(&self, address: &str) {
        {
            let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = list.iter().find(|endpoint| endpoint.address() == address) {
                if self.leader.load(Ordering::Relaxed) != found.index {
                    self.leader.store(found.index, Ordering::Relaxed);
                }
                return;
            }
        }
        if !is_host_and_port(address) {
            return;
        }
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let index = list.len();
        let known = list.iter().any(|endpoint| endpoint.address() == address);
        if index < ENDPOINTS_MAX && !known {
            list.push(Endpoint::new(index, service::http::base(address)));
            self.leader.store(index, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.list.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many nodes the call has not given up.
    pub(crate) fn count_left(&self, tried: &Tried) -> usize {
        (0..self.count())
            .filter(|index| tried.given_up & (1 << *index) == 0)
            .count()
    }

    fn now_ms(&self) -> u64 {
        millis(self.epoch.elapsed())
    }
}

impl Endpoint {
    fn new(index: usize, base: String) -> Arc<Self> {
        Arc::new(Self {
            index,
            base,
            failures: AtomicU32::new(0),
            rests_until_ms: AtomicU64::new(0),
        })
    }

    /// It answered, whatever it said.
    pub(crate) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.rests_until_ms.store(0, Ordering::Relaxed);
        }
    }

    fn address(&self) -> &str {
        self.base.rsplit('/').next().unwrap_or(&self.base)
    }

    fn rest_ms(&self, now_ms: u64) -> u64 {
        self.rests_until_ms.load(Ordering::Relaxed).saturating_sub(now_ms)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Scheme, host and port of what a caller may write: with or without the scheme, with or without a slash at the end.
/// A scheme that the caller names stays.
pub(crate) fn base_of(endpoint: &str) -> Option<String> {
    let whole = endpoint.strip_suffix('/').unwrap_or(endpoint);
    let named = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| whole.strip_prefix(scheme));
    let address = named.unwrap_or(whole);
    let base = || named.map_or_else(|| service::http::base(address), |_named| whole.to_owned());
    is_host_and_port(address).then(base)
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    let sound_port =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    // The rules of URLs for numbers and brackets are their own.
    let sound = || Url::parse(&format!("http://{address}")).is_ok();
    !host.is_empty() && host.len() <= 255 && host.bytes().all(plain) && sound_port && sound()
}

#[cfg(test)]
mod tests {
    use super::{Endpoints, Prefer, Tried, base_of};

    fn three() -> Endpoints {
        Endpoints::new((1..=3).map(|n| format!("http://127.0.0.1:700{n}")).collect(), 0)
    }

    #[tokio::test]
    async fn a_call_goes_round_all_nodes_before_it_repeats_one() {
        let endpoints = three();
        endpoints.leader_is("127.0.0.1:7003");
        let mut tried = Tried::default();
        let order: Vec<_> = (0..4)
            .map(|_| endpoints.choose(Prefer::Leader, &mut tried).index)
            .collect();
        assert_eq!(order, [2, 0, 1, 2]);
    }

    #[tokio::test]
    async fn a_failed_node_rests_unless_all_do() {
        let endpoints = three();
        let pick = || endpoints.choose(Prefer::Sticky, &mut Tried::default());
        let first = pick();
        assert_eq!(first.index, 0);
        endpoints.failed(&first);
        assert_eq!(pick().index, 1);
        // Calls that failed together count once, so the rest does not grow.
        endpoints.failed(&first);
        assert!(first.rest_ms(endpoints.now_ms()) <= 100);
        endpoints.failed(&pick());
        endpoints.failed(&pick());
        // All rest: some node is asked all the same.
        pick();
        first.answered();
        assert_eq!(pick().index, 0);
    }

    #[tokio::test]
    async fn a_node_that_a_call_gave_up_is_not_chosen_although_all_others_rest() {
        let endpoints = three();
        let mut tried = Tried::default();
        let first = endpoints.choose(Prefer::Sticky, &mut tried);
        tried.give_up(&first);
        assert_eq!((first.index, endpoints.count_left(&tried)), (0, 2));
        let mut next = || endpoints.choose(Prefer::Sticky, &mut tried);
        let others = [next(), next()];
        assert_eq!([next().index, next().index], [1, 2], "a new round");
        for other in others {
            endpoints.failed(&other);
        }
        assert!([next(), next(), next()].iter().all(|node| node.index != 0));
        // Another call may.
        assert_eq!(endpoints.choose(Prefer::Sticky, &mut Tried::default()).index, 0);
    }

    #[tokio::test]
    async fn a_leader_that_fails_is_forgotten() {
        let endpoints = three();
        endpoints.leader_is("127.0.0.1:7002");
        let leader = endpoints.choose(Prefer::Leader, &mut Tried::default());
        assert_eq!(leader.index, 1);
        endpoints.not_leader(&leader);
        assert_eq!(endpoints.choose(Prefer::Leader, &mut Tried::default()).index, 0);
    }

    #[tokio::test]
    async fn an_unknown_leader_is_learned_only_if_it_looks_like_an_address() {
        let endpoints = three();
        for odd in [
            "",
            "nonsense",
            "a b:1",
            "host:0",
            "host:99999",
            "evil/path:80",
            "u@h:80",
            "::1:7001",
            "[::1:7001",
            "300.0.0.1:7001",
        ] {
            endpoints.leader_is(odd);
        }
        assert_eq!(endpoints.count(), 3);
        endpoints.leader_is("10.0.0.9:7009");
        endpoints.leader_is("10.0.0.9:7009");
        assert_eq!(endpoints.count(), 4);
        let leader = endpoints.choose(Prefer::Leader, &mut Tried::default());
        assert_eq!(leader.base, "http://10.0.0.9:7009");
    }

    #[test]
    fn endpoints_are_read_with_or_without_scheme() {
        assert_eq!(
            base_of("127.0.0.1:7001").as_deref(),
            Some("http://127.0.0.1:7001")
        );
        assert_eq!(
            base_of("http://[::1]:7001/").as_deref(),
            Some("http://[::1]:7001")
        );
        assert_eq!(base_of("https://h:1/").as_deref(), Some("https://h:1"));
        for odd in ["", "host", "http://h:1/path", "ftp://h:1"] {
            assert_eq!(base_of(odd), None, "{odd}");
        }
    }
}
