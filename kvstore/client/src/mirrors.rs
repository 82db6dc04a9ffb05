//! Announcing a mirror, telling how far it is, and asking how all of them stand.

use crate::call::{Request, Safety};
use crate::client::KvClient;
use crate::endpoints::Prefer;
use crate::error::{Error, Result};
use crate::path::{self, Target};
use crate::wire::level::Consistency;
use crate::wire::mirror::{Granted, KeptAnswers, MirrorAck, MirrorRequest, MirrorStatus};
use crate::wire::{LeaseId, Revision};
use reqwest::Method;
use reqwest::header::LINK;

/// Leases of one page, as many as the store gives.
const LEASES_OF_A_PAGE: u32 = 200;

impl KvClient {
    /// Announces a mirror, or changes what was announced.
    pub async fn mirror_put(&self, name: &str, mirror: &MirrorRequest) -> Result<MirrorStatus> {
        let target = format!("/v1/mirrors/{}", path::segment(name));
        let request = Request::write(Method::PUT, target, self.repeatable());
        self.call_json(request.json(mirror)?).await
    }

    /// Tells that everything up to a revision is on the mirror's disk. The route takes no key.
    pub async fn mirror_ack(&self, name: &str, ack: &MirrorAck) -> Result<MirrorStatus> {
        let target = format!("/v1/mirrors/{}/ack", path::segment(name));
        let request = Request::write(Method::POST, target, Safety::Repeatable);
        self.call_json(request.json(ack)?).await
    }

    pub async fn mirrors(&self) -> Result<Vec<MirrorStatus>> {
        self.call_json(Request::read("/v1/mirrors", Prefer::Leader)).await
    }

    /// All leases, for who may read all keys; at least as of a revision, and as the answering nodes have them.
    pub async fn granted(&self, least: Revision) -> Result<Vec<Granted>> {
        let level = Consistency::AtLeast(least).to_string();
        let (mut all, mut after) = (Vec::<Granted>::new(), None::<LeaseId>);
        loop {
            // All of them, or all keys on one of them, may be more than an answer can be.
            let target = Target::new("/v1/leases")
                .query("consistency", &level)
                .flag("keyless", true)
                .query_if("limit", Some(LEASES_OF_A_PAGE))
                .query_if("cursor", after);
            let request = Request::read(target.into_string(), self.prefer_for_reads());
            let answer = self.call(request).await?;
            let page: Vec<Granted> = serde_json::from_slice(&answer.body).map_err(Error::json)?;
            let last = page.last().map(|lease| lease.id);
            all.extend(page);
            if !answer.headers.contains_key(LINK) {
                return Ok(all);
            }
            if last <= after {
                return Err(Error::Protocol {
                    detail: "a page of leases that leads to itself",
                    source: None,
                });
            }
            after = last;
        }
    }

    /// Kept answers in the order of their owners and keys, after this one; for who may read all keys. At least up to
    /// `least`, and as the answering node has it.
    pub async fn kept_answers(&self, after: Option<(&str, &str)>, least: Revision) -> Result<KeptAnswers> {
        let target =
            Target::new("/v1/answers").query("consistency", &Consistency::AtLeast(least).to_string());
        let target = match after {
            Some((owner, key)) => target.query("owner", owner).query("key", key),
            None => target,
        };
        self.call_json(Request::read(target.into_string(), self.prefer_for_reads()))
            .await
    }

    /// From then on nobody waits for it any more.
    pub async fn mirror_delete(&self, name: &str) -> Result<()> {
        let target = format!("/v1/mirrors/{}", path::segment(name));
        self.call(Request::write(Method::DELETE, target, self.repeatable()))
            .await
            .map(drop)
    }
}
