//! `/api/v1/fleet`: what is in the field, counted; and how a deployment went over time.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use fuota::{FleetView, MemberView};
use serde::Serialize;

use crate::{
    extract::{Id, Nothing, Query},
    page,
    problem::Problem,
    routes::App,
};

/// GET the fleet counted.
pub async fn fleet(State(app): State<App>, Query(Nothing {}): Query<Nothing>) -> Json<FleetView> {
    Json(app.service.fleet())
}

/// Points of a history at most.
const POINTS: usize = 120;

/// How many devices of a deployment had reached which state when. What is left out is what they
/// went through before: each device counts from when it last moved.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HistoryView {
    /// In the order of time; the last one is now's state.
    points: Vec<Point>,
}

/// One moment.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Point {
    /// In seconds since 1970.
    at: u64,
    /// Devices that had come to rest in this state by then.
    counts: BTreeMap<&'static str, usize>,
}

/// GET how a deployment went over time.
pub async fn history(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<HistoryView>, Problem> {
    let members = page::read_number(&id)
        .and_then(|number| app.service.deployment_devices(number, None, usize::MAX))
        .ok_or_else(|| Problem::not_found(format!("there is no deployment {id:?}")))?;
    Ok(Json(HistoryView { points: points(&members) }))
}

fn points(members: &[MemberView]) -> Vec<Point> {
    let mut moves: Vec<(u64, &'static str)> =
        members.iter().filter_map(|member| Some((member.at?, member.state?))).collect();
    moves.sort_unstable();
    let (Some((first, _)), Some((last, _))) = (moves.first(), moves.last()) else {
        return Vec::new();
    };
    let step = (last - first).div_ceil(POINTS as u64 - 1).max(1);
    let mut counts = BTreeMap::new();
    let mut points: Vec<Point> = Vec::new();
    for (at, state) in moves.iter().copied() {
        *counts.entry(state).or_insert(0) += 1;
        let slot = first + (at - first).div_ceil(step) * step;
        match points.last_mut() {
            Some(point) if point.at == slot => point.counts = counts.clone(),
            _ => points.push(Point { at: slot, counts: counts.clone() }),
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(at: u64, state: &'static str) -> MemberView {
        MemberView {
            device: "d".into(),
            state: Some(state),
            reason: None,
            wave: Some(1),
            at: Some(at),
        }
    }

    #[test]
    fn each_device_counts_from_when_it_last_moved() {
        let waiting = MemberView { state: None, at: None, ..member(0, "offered") };
        let points = points(&[member(20, "failed"), member(10, "updated"), waiting]);
        let of =
            |pairs: &[(&'static str, usize)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        assert_eq!(
            points,
            [
                Point { at: 10, counts: of(&[("updated", 1)]) },
                Point { at: 20, counts: of(&[("failed", 1), ("updated", 1)]) },
            ]
        );
    }

    #[test]
    fn a_history_has_a_bound_and_ends_with_everybody() {
        let members: Vec<_> = (0..10_000).map(|at| member(at * 7, "updated")).collect();
        let points = points(&members);
        assert!(points.len() <= POINTS + 1, "{}", points.len());
        assert_eq!(points.last().unwrap().counts["updated"], 10_000);
        assert!(points.is_sorted_by_key(|point| point.at));
        assert!(super::points(&[]).is_empty());
    }
}
