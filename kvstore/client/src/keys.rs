//! Single keys, ranges of them, and the store's revision.
//! A key with a segment `.` or `..` cannot stand in a path and takes the way of a transaction instead.

use crate::attempt::Answer;
use crate::call::Request;
use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::path::{self, Target};
use crate::wire::headers;
use crate::wire::kv::{Created, Deleted, KeyValue, Page, Put, RevisionAnswer};
use crate::wire::level::Consistency;
use crate::wire::{LeaseId, Revision};
use bytes::Bytes;
use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Method, StatusCode};

/// How a read is to be served: at which level, and of which revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    pub consistency: Consistency,
    /// A revision of the past; `None` is the present.
    pub revision: Option<Revision>,
}

/// What must hold for a put, and what it binds the key to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    pub lease: Option<LeaseId>,
    /// Only create.
    pub if_absent: bool,
    /// Only if the key is still at this revision.
    pub if_match: Option<Revision>,
}

/// One key as a read found it, and what the read was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub kv: Option<KeyValue>,
    /// The store's revision that the read saw.
    pub revision: Revision,
    /// What was really given.
    pub consistency: Consistency,
}

/// A page of keys. Everything left out asks for nothing in particular.
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of the route")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    pub prefix: Option<String>,
    /// Inclusive.
    pub from: Option<String>,
    /// Exclusive.
    pub to: Option<String>,
    /// Without one a page is as large as the store gives. A larger one is refused; `service::config::RANGE_ROWS_MIN`
    /// rows every store gives.
    pub limit: Option<u32>,
    /// From the page before: continues at that page's revision.
    pub cursor: Option<String>,
    pub descending: bool,
    pub keys_only: bool,
    pub count_only: bool,
    /// Does not count the keys beyond this page, which takes long in a large range.
    pub uncounted: bool,
    pub read: ReadOptions,
}

impl RangeRequest {
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: Some(prefix.into()),
            ..Self::default()
        }
    }
}

impl KvClient {
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        Ok(self.read(key, ReadOptions::default()).await?.kv)
    }

    pub async fn get_with(&self, key: &str, options: ReadOptions) -> Result<Option<KeyValue>> {
        Ok(self.read(key, options).await?.kv)
    }

    /// `get` that also tells which revision of the store it saw.
    pub async fn read(&self, key: &str, options: ReadOptions) -> Result<Read> {
        let Some(path) = path::of_key(key) else {
            return self.read_by_body(key, options).await;
        };
        let target = with_level(Target::new(path), options).into_string();
        let request = Request::read(target, self.prefer_for_reads()).absent_is_fine();
        read_of(key, self.call(request).await?)
    }

    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<Put> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// `Conflict` when `if_absent` or `if_match` does not hold.
    pub async fn put_with(&self, key: &str, value: impl Into<Bytes>, options: PutOptions) -> Result<Put> {
        let Some(path) = path::of_key(key) else {
            return self.put_by_body(key, value.into(), options).await;
        };
        let target = Target::new(path).query_if("lease", options.lease).into_string();
        let mut request = Request::write(Method::PUT, target, self.keyed()).raw(value.into());
        if options.if_absent {
            request = request.header("if-none-match", HeaderValue::from_static("*"));
        }
        if let Some(revision) = options.if_match {
            request = request.header("if-match", etag(revision));
        }
        self.call_json(request).await
    }

    /// Stores the value under a new key below `prefix`, which the store makes.
    pub async fn create_key(&self, prefix: &str, value: impl Into<Bytes>) -> Result<Created> {
        let mut target = Target::new("/v1/kv");
        if !prefix.is_empty() {
            target = target.query("prefix", prefix);
        }
        let request = Request::write(Method::POST, target.into_string(), self.keyed());
        self.call_json(request.raw(value.into())).await
    }

    /// Deleting an absent key is no error: `deleted` is 0.
    pub async fn delete(&self, key: &str) -> Result<Deleted> {
        self.delete_with(key, None).await
    }

    /// Deletes only if the key is still at `if_match`; `Conflict` otherwise.
    pub async fn delete_with(&self, key: &str, if_match: Option<Revision>) -> Result<Deleted> {
        let Some(path) = path::of_key(key) else {
            return self.delete_by_body(key, if_match).await;
        };
        let mut request = Request::write(Method::DELETE, path, self.keyed());
        if let Some(revision) = if_match {
            request = request.header("if-match", etag(revision));
        }
        self.call_json(request).await
    }

    pub async fn delete_prefix(&self, prefix: &str) -> Result<Deleted> {
        let target = Target::new("/v1/kv").query("prefix", prefix).into_string();
        self.call_json(Request::write(Method::DELETE, target, self.keyed()))
            .await
    }

    /// One page. `scan` walks all of them.
    pub async fn range(&self, range: RangeRequest) -> Result<Page> {
        let mut target = Target::new("/v1/kv")
            .query_if("prefix", range.prefix)
            .query_if("from", range.from)
            .query_if("to", range.to)
            .query_if("limit", range.limit)
            .query_if("cursor", range.cursor)
            .flag("keys_only", range.keys_only)
            .flag("count_only", range.count_only)
            .flag("uncounted", range.uncounted);
        if range.descending {
            target = target.query("order", "desc");
        }
        let target = with_level(target, range.read).into_string();
        self.call_json(Request::read(target, self.prefer_for_reads()))
            .await
    }

    /// The cheapest linearizable read: the newest revision of the store.
    pub async fn revision(&self) -> Result<Revision> {
        let request = Request::read("/v1/revision", self.prefer_for_reads());
        let answer: RevisionAnswer = self.call_json(request).await?;
        Ok(answer.revision)
    }
}

pub(crate) fn with_level(target: Target, options: ReadOptions) -> Target {
    let level = options.consistency;
    target
        .query_if("consistency", (level != Consistency::default()).then_some(level))
        .query_if("revision", options.revision)
}

fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::try_from(headers::etag(revision)).expect("digits in quotes are a header value")
}

/// Puts together what the headers of a single read say.
pub(crate) fn read_of(key: &str, answer: Answer) -> Result<Read> {
    let number = |name: &str| answer.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let missing = |detail| Error::Protocol { detail, source: None };
    let revision = number(headers::REVISION).ok_or_else(|| missing("a read without X-Kv-Revision"))?;
    let consistency = answer
        .headers
        .get(headers::CONSISTENCY)
        .and_then(|level| level.to_str().ok()?.parse().ok())
        .unwrap_or_default();
    let kv = if answer.status == StatusCode::NOT_FOUND {
        None
    } else {
        let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        Some(KeyValue {
            key: key.to_owned(),
            mod_revision: tag
                .and_then(headers::revision_of_etag)
                .ok_or_else(|| missing("a value without ETag"))?,
            create_revision: number(headers::CREATE_REVISION).unwrap_or(0),
            version: number(headers::VERSION).unwrap_or(0),
            lease: number(headers::LEASE).unwrap_or(0),
            value: Some(answer.body),
        })
    };
    Ok(Read {
        kv,
        revision,
        consistency,
    })
}
