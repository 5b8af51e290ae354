//! What the sidecar gets of memory and CPU, and what the pod gets more of for it.
//!
//! Memory follows the configuration: request and limit are what `globalFlushThreshold` needs, since a sidecar that is killed
//! for want of memory while it replays is killed again. A pod whose class is Guaranteed keeps it.

use serde_json::{Map, Value, json};
use walstorage_crds::walstorage::{Effective, IntOrString, sidecar_memory};

use super::added::Added;
use super::amounts::Unit;
use crate::webhook::json::{edit_object, list};
use crate::webhook::refusal::Refusal;

/// CPU of the sidecar in a Guaranteed pod, where the WalStorage gives none: thousandths.
const GUARANTEED_CPU: u64 = 500;

/// The sidecar's resources.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sidecar {
    /// As in a container.
    pub(super) value: Value,
    /// CPU that it has in both because the pod is Guaranteed.
    pub(super) own_cpu: Option<String>,
}

/// The resources of the sidecar in this pod, which has none yet.
pub(super) fn sidecar(effective: &Effective, pod: &Value) -> Sidecar {
    let given = |kind: &Option<std::collections::BTreeMap<String, IntOrString>>| {
        let all = kind.iter().flatten().map(|(name, amount)| (name.clone(), amount.to_string()));
        all.map(|(name, amount)| {
            let unit = Unit::ALL.iter().find(|(known, _)| *known == name);
            let plain = unit.map(|(_, unit)| unit.plain(&amount));
            (name, Value::from(plain.unwrap_or(amount)))
        })
        .collect::<Map<String, Value>>()
    };
    let (mut requests, mut limits) = (given(&effective.resources.requests), given(&effective.resources.limits));
    let guaranteed = !has_pod_level(pod) && is_guaranteed(pod);
    let mut own_cpu = None;

    let needed = Value::from(sidecar_memory(effective.global_flush_threshold).to_string());
    let limit = limits.get("memory").or_else(|| requests.get("memory")).unwrap_or(&needed).clone();
    limits.insert("memory".to_owned(), limit.clone());
    if guaranteed || !requests.contains_key("memory") {
        requests.insert("memory".to_owned(), limit);
    }
    if guaranteed {
        let given = limits.get("cpu").or_else(|| requests.get("cpu")).and_then(Value::as_str);
        let cpu = given.map_or_else(|| Unit::Cpu.print(GUARANTEED_CPU), str::to_owned);
        limits.insert("cpu".to_owned(), cpu.as_str().into());
        requests.insert("cpu".to_owned(), cpu.as_str().into());
        own_cpu = Some(cpu);
    }
    Sidecar { value: json!({"limits": limits, "requests": requests}), own_cpu }
}

/// Whether the pod's class is Guaranteed by its containers: each has limits of both, and requests nothing less.
fn is_guaranteed(pod: &Value) -> bool {
    let mut all = list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")).peekable();
    all.peek().is_some()
        && all.all(|container| {
            Unit::ALL.iter().all(|(name, unit)| {
                let amount = |kind: &str| amount(container.pointer(&format!("/resources/{kind}/{name}"))?, *unit);
                let limit = amount("limits").filter(|limit| *limit > 0);
                limit.is_some() && amount("requests").is_none_or(|request| Some(request) == limit)
            })
        })
}

/// A quantity of a pod: the API server sends texts, people write numbers too.
fn amount(value: &Value, unit: Unit) -> Option<u64> {
    match value {
        Value::String(text) => unit.parse(text),
        Value::Number(number) => unit.parse(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether the pod bounds all its containers together.
fn has_pod_level(pod: &Value) -> bool {
    let any = |kind| pod.pointer(kind).and_then(Value::as_object).is_some_and(|amounts| !amounts.is_empty());
    any("/spec/resources/requests") || any("/spec/resources/limits")
}

/// Raises what the pod bounds together by the sidecar's share.
pub(super) fn raise(
    pod: &Value,
    spec: &mut Map<String, Value>,
    sidecar: &Value,
    added: &mut Added,
) -> Result<(), Refusal> {
    if !has_pod_level(pod) {
        return Ok(());
    }
    for (name, unit) in Unit::ALL {
        let share = ["requests", "limits"].iter().filter_map(|kind| amount(sidecar.get(kind)?.get(name)?, unit)).max();
        let share = share.unwrap_or(0);
        change(spec, name, unit, |old| old.checked_add(share))?;
        let text = Some(unit.print(share));
        match unit {
            Unit::Cpu => added.cpu = text,
            Unit::Memory => added.memory = text,
        }
    }
    Ok(())
}

/// Takes away what [`raise`] added.
pub(super) fn strip(spec: &mut Map<String, Value>, added: &Added) -> Result<(), Refusal> {
    for ((name, unit), share) in Unit::ALL.into_iter().zip([&added.cpu, &added.memory]) {
        let Some(share) = share.as_deref().and_then(|share| unit.parse(share)) else { continue };
        // Below the share somebody has written it anew.
        change(spec, name, unit, |old| Some(old.checked_sub(share).unwrap_or(old)))?;
    }
    Ok(())
}

fn change(
    spec: &mut Map<String, Value>,
    name: &str,
    unit: Unit,
    new: impl Fn(u64) -> Option<u64>,
) -> Result<(), Refusal> {
    edit_object(spec, "resources", |resources| {
        for kind in ["requests", "limits"] {
            let Some(value) = resources.get_mut(kind).and_then(|amounts| amounts.get_mut(name)) else { continue };
            let changed = amount(value, unit).and_then(&new);
            let bad = || Refusal::BadAmount { field: format!("{kind}.{name}"), value: value.to_string() };
            let changed = unit.print(changed.ok_or_else(bad)?);
            *value = Value::from(changed);
        }
        Ok(())
    })
}
