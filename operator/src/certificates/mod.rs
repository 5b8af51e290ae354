//! The webhook's certificates: an authority of its own, a leaf of it, both in one Secret, and their renewal without a moment
//! in which the API server refuses what the webhook serves.
//!
//! 1. The API server trusts what the bundle holds; the webhook serves what the Secret holds. A leaf of a new authority is
//!    served only after a bundle with both authorities was read back.
//! 2. An old authority leaves the bundle only after every endpoint was seen to serve a leaf of the new one, and a while later.
//! 3. Every change of the Secret is a replacement with its resourceVersion: two leaders at once lose a race, and nothing else.
//! 4. Of the webhook's configuration only the field `caBundle` is written, by a field manager of its own.
//!
//! `rotation` is the state machine, `material` the Secret, `issue` makes and reads certificates, `keeper` runs in the
//! controller, `served` and `trusted` in the webhook.

pub mod issue;
pub mod keeper;
pub mod material;
pub mod rotation;
pub mod served;
pub mod trusted;
