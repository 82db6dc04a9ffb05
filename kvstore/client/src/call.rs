//! One call: as many attempts as its deadline allows, and only such that are safe to repeat.
//! Invariant: a write that may have reached a node ends as done, refused by the store, or `Unknown`.
//! It must not know what a request means; `verdict` judges single answers.

use crate::attempt::{self, Answer, Outcome};
use crate::client::{Shared, TRY_TIME_MAX};
use crate::endpoints::{Prefer, Tried};
use crate::error::{Error, Result, Trouble};
use crate::verdict::{self, Verdict};
use crate::wire::problem::Problem;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use service::time::Since;
use tokio::time::{Duration, Instant};

/// The first try of a call is the shortest: a paused leader must not hold up its clients for longer
/// than an election takes. Each later one gets twice the time, so that a slow node is not given up on.
const FIRST_TRY: Duration = Duration::from_millis(400);
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Overload is not cured by hurry.
const PAUSE_OVERLOADED: Duration = Duration::from_millis(100);

/// What may be done after an attempt whose fate is open.
#[derive(Clone, Debug)]
pub(crate) enum Safety {
    /// Changes nothing: repeat at will.
    Read,
    /// A write that carries this idempotency key: the store does it once however often it comes.
    Keyed(HeaderValue),
    /// A write that has the same effect however often it comes.
    Repeatable,
    /// A write that must not be sent again once it may have arrived. The caller may, if it carries a key of theirs.
    Once(Option<HeaderValue>),
}

impl Safety {
    /// The idempotency key that the write carries.
    pub(crate) fn key(&self) -> Option<&HeaderValue> {
        match self {
            Self::Keyed(key) | Self::Once(Some(key)) => Some(key),
            Self::Read | Self::Repeatable | Self::Once(None) => None,
        }
    }
}

pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) safety: Safety,
    pub(crate) prefer: Prefer,
    /// `key-not-found` is an answer, not an error.
    pub(crate) absent_is_fine: bool,
    /// The first try may take all of the time.
    pub(crate) is_brief: bool,
}

impl Request {
    pub(crate) fn read(target: impl Into<String>, prefer: Prefer) -> Self {
        Self::new(Method::GET, target.into(), Safety::Read, prefer)
    }

    pub(crate) fn write(method: Method, target: impl Into<String>, safety: Safety) -> Self {
        Self::new(method, target.into(), safety, Prefer::Leader)
    }

    fn new(method: Method, target: String, safety: Safety, prefer: Prefer) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            safety,
            prefer,
            absent_is_fine: false,
            is_brief: false,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn json<T: serde::Serialize>(mut self, body: &T) -> Result<Self> {
        let json = HeaderValue::from_static("application/json");
        self.headers.insert(reqwest::header::CONTENT_TYPE, json);
        self.body = serde_json::to_vec(body).map_err(Error::json)?.into();
        Ok(self)
    }

    pub(crate) fn raw(mut self, body: Bytes) -> Self {
        let octets = HeaderValue::from_static("application/octet-stream");
        self.headers.insert(reqwest::header::CONTENT_TYPE, octets);
        self.body = body;
        self
    }

    pub(crate) fn absent_is_fine(mut self) -> Self {
        self.absent_is_fine = true;
        self
    }
}

/// Sends a request until it is settled or `time` is over.
pub(crate) async fn call(shared: &Shared, request: Request, time: Duration) -> Result<Answer> {
    let request = shared.finish(request);
    let (began, deadline) = (Since::now(), Instant::now() + time);
    let mut call = Call {
        shared,
        request: &request,
        tried: Tried::default(),
        without_room: 0,
        may_have_happened: false,
    };
    let mut try_time = if request.is_brief {
        shared.try_time_max
    } else {
        // Half of a short deadline, so that there is time for a second try.
        FIRST_TRY.min(shared.try_time_max).min(time / 2)
    };
    let mut pause = PAUSE_MIN;
    let mut another_node_now = shared.endpoints.count() > 1;
    // What a node said last tells more than that the time is over.
    let mut last = Trouble::Timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // After a sleep of this machine the store may have forgotten what it answered under the key.
        let left = left.min(time.saturating_sub(began.elapsed()));
        if left.is_zero() {
            return Err(call.give_up(last));
        }
        let once = matches!(request.safety, Safety::Once(_));
        let limit = if once { left } else { try_time.min(left) };
        let trouble = match call.attempt(limit).await {
            Settled::Yes(result) => return result,
            Settled::No(trouble) => trouble,
        };
        if once && call.may_have_happened {
            return Err(call.give_up(trouble));
        }
        try_time = next_try_time(try_time, &trouble, shared.try_time_max);
        // Another node can be asked at once: it is not the one that failed.
        let wait = if another_node_now && !is_overload(&trouble) {
            Duration::ZERO
        } else {
            let wait = if is_overload(&trouble) {
                pause.max(PAUSE_OVERLOADED)
            } else {
                pause
            };
            pause = (pause * 2).min(PAUSE_MAX);
            jitter(wait)
        };
        another_node_now = false;
        if Instant::now() + wait >= deadline {
            return Err(call.give_up(trouble));
        }
        last = trouble;
        tokio::time::sleep(wait).await;
    }
}

struct Call<'a> {
    shared: &'a Shared,
    request: &'a Request,
    tried: Tried,
    /// How often a node said that it had none; a full disk concerns that node alone.
    without_room: usize,
    /// Some attempt of a write may have taken effect, or may yet.
    may_have_happened: bool,
}

enum Settled {
    Yes(Result<Answer>),
    No(Trouble),
}

impl Call<'_> {
    async fn attempt(&mut self, limit: Duration) -> Settled {
        let endpoints = &self.shared.endpoints;
        let endpoint = endpoints.choose(self.request.prefer, &mut self.tried);
        match attempt::send(&self.shared.http, &endpoint.base, self.request, limit).await {
            Outcome::Answer(answer) => {
                endpoint.answered();
                self.shared.heed_leader(&answer.headers);
                let verdict = verdict::of(answer, self.request.absent_is_fine);
                match &verdict {
                    Verdict::Done(_) if self.request.prefer == Prefer::Sticky => {
                        endpoints.served(&endpoint);
                    }
                    Verdict::NotTaken(Trouble::Problem(problem)) if problem.code == "no-leader" => {
                        endpoints.not_leader(&endpoint);
                    }
                    _ => {}
                }
                self.settle(verdict)
            }
            Outcome::NotSent(trouble) => {
                endpoints.failed(&endpoint);
                Settled::No(trouble)
            }
            Outcome::Lost(trouble) => {
                endpoints.failed(&endpoint);
                self.may_have_happened |= self.is_write();
                Settled::No(trouble)
            }
        }
    }

    fn settle(&mut self, verdict: Verdict) -> Settled {
        match verdict {
            Verdict::Done(answer) => Settled::Yes(Ok(answer)),
            Verdict::Refused(error) => Settled::Yes(Err(error)),
            Verdict::TurnedAway(problem) => self.turned_away(problem),
            Verdict::NoRoom(problem) => {
                self.without_room += 1;
                if self.without_room < self.shared.endpoints.count() {
                    Settled::No(Trouble::Problem(problem))
                } else {
                    self.turned_away(problem)
                }
            }
            Verdict::NotTaken(trouble) => Settled::No(trouble),
            Verdict::Open(trouble) => {
                self.may_have_happened |= self.is_write();
                Settled::No(trouble)
            }
            Verdict::Broken(problem) => Settled::Yes(Err(if self.is_write() {
                self.may_have_happened = true;
                self.give_up(Trouble::Problem(problem))
            } else {
                Error::Problem(problem)
            })),
        }
    }

    /// This attempt did nothing, but it says nothing about an earlier one.
    fn turned_away(&self, problem: Box<Problem>) -> Settled {
        Settled::Yes(Err(if self.may_have_happened {
            self.give_up(Trouble::Problem(problem))
        } else {
            verdict::error_of(problem, None)
        }))
    }

    fn is_write(&self) -> bool {
        !matches!(self.request.safety, Safety::Read)
    }

    fn give_up(&self, source: Trouble) -> Error {
        if !self.may_have_happened {
            return Error::Unavailable { source };
        }
        let key = self.request.safety.key();
        let idempotency_key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
        Error::Unknown {
            idempotency_key,
            source,
        }
    }
}

/// Twice the time. More than is usual only after a try whose time ran out: quick refusals say nothing of slow answers,
/// and a node that stands still after them must not take all the time that is left.
fn next_try_time(last: Duration, trouble: &Trouble, most: Duration) -> Duration {
    let most = if matches!(trouble, Trouble::Timeout) {
        most
    } else {
        most.min(last.max(TRY_TIME_MAX))
    };
    most.min(last * 2)
}

/// Half of the wait is fixed and half is drawn, so that clients that failed together do not return together.
pub(crate) fn jitter(wait: Duration) -> Duration {
    let drawn = getrandom::u32().expect("the operating system has random bytes to give");
    wait / 2 + (wait / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

fn is_overload(trouble: &Trouble) -> bool {
    matches!(trouble.code(), "overloaded" | "too-many-requests")
}

#[cfg(test)]
mod tests {
    use super::{FIRST_TRY, TRY_TIME_MAX, next_try_time};
    use crate::error::Trouble;
    use tokio::time::Duration;

    #[test]
    fn only_tries_whose_time_ran_out_grow_beyond_what_is_usual() {
        let most = Duration::from_secs(50);
        let quick = Trouble::TooLarge { bytes_max: 1 };
        let grown = |trouble: &Trouble, most: Duration| {
            (0..10).fold(FIRST_TRY, |last, _| next_try_time(last, trouble, most))
        };
        assert_eq!(grown(&Trouble::Timeout, most), most);
        assert_eq!(grown(&Trouble::Timeout, TRY_TIME_MAX), TRY_TIME_MAX);
        assert_eq!(grown(&quick, most), TRY_TIME_MAX);
        assert_eq!(grown(&quick, FIRST_TRY), FIRST_TRY);
        // What has shown itself to be slow keeps its time.
        let slow = Duration::from_secs(8);
        assert_eq!(next_try_time(slow, &quick, most), slow);
    }
}
