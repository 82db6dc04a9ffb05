//! The table of all kinds of problems: code, status, title, and a help text for people.
//! Invariant: a code is kebab-case, stands here once, and never changes its meaning.
//! Each help text says what happened and what the caller should do next.

use super::Kind;

macro_rules! kinds {
    ($($name:ident $status:literal $code:literal $title:literal $help:literal)*) => {
        $(
            #[doc = concat!("The kind `", $code, "`.")]
            pub const $name: &Kind = &Kind { code: $code, status: $status, title: $title, help: $help };
        )*
        /// Every kind there is.
        pub const ALL: &[&Kind] = &[$($name),*];
    };
}

kinds! {
    MALFORMED_JSON 400 "malformed-json" "Malformed JSON"
    "The body is not valid JSON, or it is nested deeper than is allowed here. Check the brackets, quotes and commas \
     at the place the detail names. Nothing was read or written; send the corrected request."
    MALFORMED_PARAMETER 400 "malformed-parameter" "Malformed parameter"
    "A part of the path or of the query cannot be read: a number that is none, a word that is not among the \
     allowed ones, or text that is not UTF-8. The detail names the parameter. Percent-encode keys in paths \
     and send the corrected request."
    MALFORMED_BODY 400 "malformed-body" "Malformed body"
    "The body broke off before it was complete, or its framing is broken. Nothing was written. Send the whole \
     request again; if it happens often, look at what stands between you and the server."
    BODY_TIMEOUT 400 "body-timeout" "Body took too long"
    "The body did not arrive within the time a request may take. Nothing was written. Send it again, faster \
     or in smaller parts."
    MISSING_PREFIX 400 "missing-prefix" "Missing prefix"
    "Deleting a range needs a prefix, so that nobody empties the whole store by leaving a parameter out. Say \
     which keys you mean with ?prefix=. To delete one key, put it into the path instead."
    INVALID_FEATURES 400 "invalid-features" "Invalid features"
    "A feature is missing, is no number, or is not finite. The detail names it, and GET /model tells which features \
     there are. Send each of them once, as a number."
    UNAUTHORIZED 401 "unauthorized" "Not signed in"
    "The request carries no bearer token, or one that is not known here. Send `Authorization: Bearer TOKEN`. \
     The command `menagerie token NAME` prints the tokens of your own cluster; a token that was removed or \
     replaced no longer works."
    INVALID_CREDENTIALS 401 "invalid-credentials" "Wrong name or password"
    "No account has this name with this password. Which of the two is wrong is not told, so that nobody can find \
     out names by trying. Check both; after too many tries in a short time further ones have to wait."
    CARD_DECLINED 402 "card-declined" "Card declined"
    "The card was not charged; `decline_code` says why. This is final for this payment id: a repetition gets \
     the same answer. Pay with another card, or bring money to this one, under a new id."
    FORBIDDEN 403 "forbidden" "Not allowed"
    "The token is known, but its rules do not cover this. Each token lists the prefixes it may read or write; \
     some routes are for the token `root` alone. Use another token, or have the rules of this one extended."
    CROSS_ORIGIN 403 "cross-origin" "From another site"
    "A change was asked for from a page of another site, or by something that does not say where it comes from. \
     Changes are taken only from the pages of this service itself, so that no other site can make a browser ask \
     for them. Open the page here and use its buttons; scripts have the command line."
    NOT_FOUND 404 "not-found" "Not found"
    "There is nothing at this path. Check the spelling of the route, and that keys in it are percent-encoded. \
     The route list is in the documentation of the service."
    KEY_NOT_FOUND 404 "key-not-found" "Key not found"
    "The store has no such key at the revision that was read. It was never written, was deleted, or its lease \
     ended. A read of the past may find it with ?revision=."
    LEASE_NOT_FOUND 404 "lease-not-found" "Lease not found"
    "There is no such lease: it ended because it was not kept alive in time, it was revoked, or it never was. \
     The keys that hung on it are gone. Ask for a new lease and write them again."
    MEMBER_NOT_FOUND 404 "member-not-found" "Member not found"
    "The cluster has no member with this id. GET /v1/cluster lists those it has. A member that was removed \
     does not come back under its old id."
    MIRROR_NOT_FOUND 404 "mirror-not-found" "Mirror not found"
    "No mirror of this name is announced. GET /v1/mirrors lists those that are. A mirror announces itself when it \
     starts; one that an operator removed does so only then."
    TOKEN_NOT_FOUND 404 "token-not-found" "Token not found"
    "There is no token of this name. GET /v1/tokens lists the names. It may have been removed already, in \
     which case there is nothing left to do."
    PIN_NOT_FOUND 404 "pin-not-found" "Pin not found"
    "The pin that held an old revision for you has ended, since its lease was not kept alive or was revoked. \
     The revision may be compacted at any time now. Begin the walk anew at the present revision."
    UNKNOWN_CARD 404 "unknown-card" "Unknown card"
    "The number is valid, but no card with it was ever opened here. Check the number. The operator opens cards \
     with PUT /v1/cards."
    PAYMENT_NOT_FOUND 404 "payment-not-found" "Payment not found"
    "No payment with this id was ever seen here. If you sent one and never heard of it, it was not carried \
     out yet: send it again with the same id, or cancel the id so that it never will be."
    PRODUCT_NOT_FOUND 404 "product-not-found" "Product not found"
    "The shop has no product with this id. It may have been taken off the shelves. GET /products lists what there \
     is."
    ORDER_NOT_FOUND 404 "order-not-found" "Order not found"
    "This user has no order with this id. GET /orders/{userId} lists those there are. An order belongs to one \
     user and is found only under that one."
    MODEL_NOT_FOUND 404 "model-not-found" "Model not found"
    "No model of this name takes part here. GET /models lists those that do; the operator adds one with POST /models."
    ROUND_NOT_FOUND 404 "round-not-found" "Round not found"
    "There is no such round. It was never opened, or it ended so long ago that it is no longer kept. POST /predict \
     opens a round and answers its id."
    METHOD_NOT_ALLOWED 405 "method-not-allowed" "Method not allowed"
    "The path exists, but not with this method. The header Allow lists the methods it takes. Repeat the \
     request with one of those."
    CONFLICT 409 "conflict" "Conflict"
    "The request does not fit the state as it is now. Read the state again, decide anew, and send a request \
     that fits. Repeating this one unchanged will not help."
    MEMBER_EXISTS 409 "member-exists" "Member exists"
    "A member with this id or address is in the cluster already. GET /v1/cluster shows it. Choose another id, \
     or remove the old member first."
    LAST_VOTER 409 "last-voter" "Last voter"
    "This is the last voting member; without it the cluster could decide nothing any more. Add another member \
     and promote it first. Then this one can be removed."
    MEMBER_NOT_CAUGHT_UP 409 "member-not-caught-up" "Member not caught up"
    "The member does not have enough of the log yet. As a voter it could leave the cluster without a majority that \
     is up to date, and as the leader it would have to get the rest first, while nobody leads. Nothing was changed. \
     Wait until its lag in GET /v1/cluster is small, then ask again; a learner is promoted before it can lead."
    MEMBERSHIP_CHANGE_IN_PROGRESS 409 "membership-change-in-progress" "Membership change under way"
    "Members are changed one at a time, and another change is not finished yet. Nothing was changed by this \
     request. Look at GET /v1/cluster and ask again once the other change is done."
    NODE_ID_REUSED 409 "node-id-reused" "Node id reused"
    "A node with an empty disk tried to take part under an id the cluster already knows. An id stands for \
     what a disk has promised, so an empty disk must not speak for it. Remove the old member and add the new \
     node under an id never used before."
    PAYMENT_CANCELED 409 "payment-canceled" "Payment canceled"
    "This payment id was canceled, perhaps before the payment itself arrived. Nothing is held and nothing was \
     charged. The id is used up; pay under a new one if you still want to."
    PAYMENT_CAPTURED 409 "payment-captured" "Payment captured"
    "The money was taken already, so the payment can no longer be canceled. Give it back with a refund, \
     PUT /v1/payments/{id}/refunds/{rid}."
    PAYMENT_EXPIRED 409 "payment-expired" "Payment expired"
    "The hold was neither captured nor canceled in time, so it ended and the money is free again. Nothing was \
     charged. Ask for a new authorization under a new id."
    PAYMENT_DECLINED 409 "payment-declined" "Payment declined"
    "The card was declined for this payment, so there is nothing that could be captured or refunded. Pay under \
     a new id."
    PAYMENT_NOT_CAPTURED 409 "payment-not-captured" "Payment not captured"
    "Only money that was taken can be given back, and this payment is only held. Cancel it, which releases the \
     whole hold, or capture it first."
    MODEL_EXISTS 409 "model-exists" "Model exists"
    "A model of this name or at this place takes part already. GET /models shows it. Raise its stake with \
     POST /models/{name}/stake, or choose another name."
    MODEL_UNBONDING 409 "model-unbonding" "Model is leaving"
    "The model is on its way out: its stake is paid out as soon as no open round depends on it. Nothing was changed. \
     Register it anew once it is gone."
    ROUND_SETTLED 409 "round-settled" "Round settled otherwise"
    "The round was settled with another outcome, and a round is settled once. Its receipt stands: \
     GET /rounds/{id} shows it."
    TOO_MANY_MODELS 409 "too-many-models" "Too many models"
    "As many models take part as may. Let one of them leave first, with DELETE /models/{name}."
    CARD_CURRENCY_FIXED 409 "card-currency-fixed" "Card has another currency"
    "A card keeps the currency it was opened with. Nothing was changed. Bring it to a balance in its own \
     currency, or open another card."
    USERNAME_TAKEN 409 "username-taken" "User name taken"
    "Somebody has this user name already; upper and lower case make no difference. Choose another one, or sign \
     in if it is yours."
    OUT_OF_STOCK 409 "out-of-stock" "Out of stock"
    "There is less of something than was ordered; `lines` says of what, and how much there is. Nothing was ordered \
     and nothing was charged. Order less, or look again later."
    CART_EMPTY 409 "cart-empty" "The cart is empty"
    "The order names no items, so the cart was to be ordered, and there is nothing in it. Perhaps it was ordered \
     a moment ago: look at the orders before you fill it again."
    CART_CHANGED 409 "cart-changed" "The cart has changed"
    "The cart was changed while it was being ordered, by another window perhaps. Nothing was ordered and nothing \
     was charged. Look at the cart again and order it as it is now."
    PRICE_CHANGED 409 "price-changed" "A price has changed"
    "The price of something changed while it was being ordered. Nothing was ordered and nothing was charged. Look \
     at the prices again and order if you still want to."
    ORDER_NOT_CANCELABLE 409 "order-not-cancelable" "The order cannot be canceled"
    "The order is in a state from which there is no way back: it has ended already, or its money is being taken at \
     this very moment. Look at its state; once it is paid it can be canceled, and the money is given back."
    COMPACTED 410 "compacted" "Compacted"
    "The revision you asked for is older than what the store still keeps. Its history was dropped, and no \
     node can answer for it. Read the present state, note its revision, and go on from there."
    ROUND_EXPIRED 410 "round-expired" "Round expired"
    "The round ended before its outcome came, and nobody won or lost anything. Open a new round."
    PRECONDITION_FAILED 412 "precondition-failed" "Precondition failed"
    "The key is not in the state that If-Match or If-None-Match asked for: somebody else wrote it first. The \
     header ETag holds its present revision, if it exists. Nothing was written; read it, decide anew, and \
     send the write with the new tag."
    TOO_LARGE 413 "too-large" "Too large"
    "The key, the value or the whole request is larger than is allowed here. The detail names the limit. \
     Nothing was written; send less at once, or split it over several keys."
    UNSUPPORTED_MEDIA_TYPE 415 "unsupported-media-type" "Unsupported media type"
    "This route takes JSON only. Send `Content-Type: application/json`, or leave the header out. Raw values \
     go to PUT /v1/kv/{key}."
    WRONG_HOST 421 "wrong-host" "Wrong host"
    "The request names a host that this page is not meant to be reached by. A site could otherwise point its own \
     name at this machine and read along. Use localhost or 127.0.0.1; through a tunnel, let it end there."
    INVALID_REQUEST 422 "invalid-request" "Invalid request"
    "The request can be read, but does not make sense as it is: a field is missing, has the wrong type, or is \
     outside its bounds. The member `errors` lists each fault with a pointer to its place. Nothing was \
     written; mend them all and send it again."
    INVALID_KEY 422 "invalid-key" "Invalid key"
    "A key is 1 to 1024 bytes of UTF-8. This one is empty, too long, or not valid text. Nothing was written; \
     choose another key."
    IDEMPOTENCY_KEY_REUSED 422 "idempotency-key-reused" "Idempotency key reused"
    "This Idempotency-Key was used before, for a request that was not the same as this one. The key belongs \
     to that request and repeats its answer only. Make a new key for each new request, and repeat a request \
     with exactly the same content."
    INVALID_CARD_NUMBER 422 "invalid-card-number" "Invalid card number"
    "A card number has 12 to 19 digits, as many as its brand prescribes, with single spaces or hyphens between \
     them if you like, and its last digit checks the others. This one is mistyped. Nothing was written; look at \
     the card again."
    UNSUPPORTED_BRAND 422 "unsupported-brand" "Unsupported brand"
    "The number is well-formed, but its first digits belong to no brand that is taken here. Nothing was \
     written; use a card of another brand."
    EXPIRED_CARD 422 "expired-card" "Expired card"
    "The month that the card is valid to has passed. Nothing was written; use another card, or look at the \
     date again."
    PAYMENT_ID_REUSED 422 "payment-id-reused" "Payment id reused"
    "This id belongs to a payment with other content: another card, amount, currency, merchant, order or way of \
     capture. That payment stands as it is. Make a new id for each new payment, and repeat a payment with \
     exactly the same content."
    CAPTURE_EXCEEDS_HOLD 422 "capture-exceeds-hold" "Capture exceeds the hold"
    "No more can be captured than is held. The hold stands as it was; capture at most its amount, and take the \
     rest with a new payment."
    CAPTURE_AMOUNT_CHANGED 422 "capture-amount-changed" "Captured with another amount"
    "A payment is captured once, and this one was, with another amount. Nothing was changed. Give back what is \
     too much with a refund, or take what is missing with a new payment."
    REFUND_EXCEEDS_CAPTURE 422 "refund-exceeds-capture" "Refund exceeds the capture"
    "All refunds of a payment together can never be more than was captured. This refund was not made and left no \
     trace; its id can be used again with a smaller amount."
    REFUND_ID_REUSED 422 "refund-id-reused" "Refund id reused"
    "This payment already has a refund with this id and another amount. That refund stands as it is. Make a new \
     id for each new refund."
    URL_NOT_ALLOWED 422 "url-not-allowed" "URL not allowed"
    "Models are called only at the hosts that consensus.model_hosts lists, over plain http, without path, query or \
     credentials. Nothing was registered; use such a URL, or have the host added to the configuration."
    FUTURE_REVISION 422 "future-revision" "Future revision"
    "The revision is higher than the present one. No write has made it yet. Ask for the present revision with \
     GET /v1/revision, or wait for it with ?consistency=at_least:REV."
    TOO_MANY_REQUESTS 429 "too-many-requests" "Too many requests"
    "You have sent more requests than you may at once. The header Retry-After says how many seconds to wait. \
     Slow down, and spread retries randomly so that they do not come all at once."
    TOO_MANY_ROUNDS 429 "too-many-rounds" "Too many open rounds"
    "So many rounds wait for their outcome that no more are opened. Report outcomes with POST /outcomes, or wait until \
     old rounds expire. GET /predict answers without opening a round."
    HEADERS_TOO_LARGE 431 "headers-too-large" "Headers too large"
    "The request line and headers together are larger than is allowed here, 16 KiB unless configured \
     otherwise. Send fewer or shorter headers, and put long values into the body."
    INTERNAL 500 "internal" "Internal error"
    "Something failed here that should not have; it is not your fault. The log of the process has the cause \
     under the request id. If the request was a write, its outcome is unknown: repeat it with the same \
     Idempotency-Key."
    TOO_MANY_WATCHERS 503 "too-many-watchers" "Too many watchers"
    "This node already serves as many watches as it may. Try another node, or close watches that are no \
     longer read. One watch with a prefix can take the place of many with a key."
    NO_LEADER 503 "no-leader" "No leader"
    "The cluster has no leader at the moment, so nothing can be written, and nothing read that must be up to \
     date. This request surely had no effect. An election takes well under a second while a majority lives: \
     try again shortly, or read with ?consistency=local."
    NO_MODELS 503 "no-models" "No models"
    "No model gave an answer that counts within the time of a round: they are down, too slow, ejected, or there are \
     none. GET /models shows how they are. Nothing was stored."
    OVERLOADED 503 "overloaded" "Overloaded"
    "There is more to do or to keep than this node may, so it refused the request at once. It surely had no \
     effect. Wait as long as Retry-After says, then repeat, with growing pauses."
    MIRROR_LOST 503 "mirror-lost" "Mirror lost"
    "A synchronous mirror is gone, and the store was told to write nothing without it (`on_loss = \"block\"`). Nothing \
     was written. Bring the mirror back, or let the store go on without it: `menagerie kv mirror delete NAME`. Then \
     send the request again."
    OUTCOME_UNKNOWN 503 "outcome-unknown" "Outcome unknown"
    "The write was handed on, but the node could not learn what became of it: the leader was lost or the time \
     ran out. It may have been done or may still be done. Repeat it with the same Idempotency-Key, which is \
     always safe, or read what you wanted to change."
    NOT_READY 503 "not-ready" "Not ready"
    "The process runs but cannot do its work yet: it is starting, catching up, or does not reach what it \
     needs. This request had no effect. Try another one, or again shortly."
    NO_INSTANCE 503 "no-instance" "No instance"
    "Nobody who could serve this runs at the moment, or all who do have failed to answer. The request surely had \
     no effect, or is one that may be repeated. Try again shortly; `menagerie status` shows who runs."
    STALE 503 "stale" "Too stale"
    "A read with ?consistency=bounded:MS was asked, and this node cannot vouch that its state is that fresh: \
     it has not heard of a confirmed majority recently enough. Ask another node, allow a longer time, or read \
     linearizably."
    BEHIND 503 "behind" "Behind"
    "A read with ?consistency=at_least:REV was asked, and this node did not reach that revision in time. Ask \
     another node, or try again shortly. If the revision came from another cluster, it may never be reached."
    TIMEOUT 503 "timeout" "Timed out"
    "The request could not be answered within the time it may take. It was not a write, or surely had no \
     effect. Try again; if it happens often, ask for less at once or look at the load."
    MEMBER_UNREACHABLE 503 "member-unreachable" "Member unreachable"
    "The member that has to take part does not answer. Nothing was changed. Check that its process runs and \
     that its peer address can be reached from the other members, then ask again."
    SHUTTING_DOWN 503 "shutting-down" "Shutting down"
    "This process is about to end and takes no new work. The request had no effect. Send it to another \
     process."
    DISK_FULL 507 "disk-full" "Disk full"
    "The disk has less free space than the node keeps in reserve, so it refuses writes. Reads still work, and \
     deleting files on that disk helps at once. The node takes writes again by itself when there is room."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn codes_are_kebab_case_and_stand_once() {
        let codes: BTreeSet<_> = ALL.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), ALL.len(), "a code stands twice");
        for code in codes {
            let words = code.split('-');
            let kebab = words
                .into_iter()
                .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()));
            assert!(kebab, "{code} is not kebab-case");
        }
    }

    #[test]
    fn every_help_text_has_two_to_five_sentences() {
        for kind in ALL {
            let sentences = kind.help.split(". ").count();
            assert!((2..=5).contains(&sentences), "{}: {sentences}", kind.code);
            assert!(kind.help.ends_with('.'), "{} ends mid-sentence", kind.code);
            assert!((400..600).contains(&kind.status), "{}", kind.code);
        }
    }
}
