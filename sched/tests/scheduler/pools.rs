// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pools: who belongs where, and that nobody runs elsewhere.

use crate::simulation::{Machine, Random, Work};
use sched::{Affinity, Cpu, CpuSet, GroupId, Kind, Params, Place, PoolId, Refusal, UnitId};

const MS: u64 = 1_000_000;
const FIRST: PoolId = PoolId::DEFAULT;

fn set<const N: usize>(cpus: [u16; N]) -> CpuSet {
    cpus.into_iter().map(Cpu).collect()
}

#[test]
fn pools_are_numbered_and_end_empty() {
    let mut machine = Machine::new(2);
    let params = Params::default();
    let sched = &mut machine.sched;
    assert_eq!(sched.create_pool(None, Kind::Null, params), Ok(PoolId(1)));
    assert_eq!(sched.create_pool(Some(PoolId(7)), Kind::Fair, params), Ok(PoolId(7)));
    assert_eq!(sched.create_pool(Some(PoolId(7)), Kind::Fair, params), Err(Refusal::Exists));
    assert_eq!(sched.create_pool(None, Kind::Fair, params), Ok(PoolId(8)));
    assert_eq!(sched.pool_ids(), [FIRST, PoolId(1), PoolId(7), PoolId(8)]);
    assert_eq!((sched.kind(PoolId(1)), sched.kind(PoolId(7))), (Some(Kind::Null), Some(Kind::Fair)));
    assert_eq!(sched.destroy_pool(FIRST), Err(Refusal::Busy));
    assert_eq!(sched.destroy_pool(PoolId(9)), Err(Refusal::Unknown));
    assert_eq!(sched.add_cpu(0, PoolId(1), Cpu(1)), Err(Refusal::NotThere), "it is in the first pool");
    assert_eq!(sched.remove_cpu(0, PoolId(1), Cpu(1)), Err(Refusal::NotThere));
    assert_eq!(sched.remove_cpu(0, FIRST, Cpu(1)), Ok(set([1])));
    assert_eq!((sched.free_cpus(), sched.pool_cpus(FIRST)), (set([1]), Some(set([0]))));
    assert_eq!(sched.schedule(0, Cpu(1)).next, None);
    assert_eq!(sched.add_cpu(0, PoolId(9), Cpu(1)), Err(Refusal::Unknown));
    assert_eq!(sched.add_cpu(0, PoolId(1), Cpu(1)), Ok(()));
    assert_eq!(sched.destroy_pool(PoolId(1)), Err(Refusal::Busy));
    sched.remove_cpu(0, PoolId(1), Cpu(1)).expect("nobody needs it");
    assert_eq!(sched.destroy_pool(PoolId(1)), Ok(()));
    // Its place is used again.
    assert_eq!(sched.create_pool(Some(PoolId(2)), Kind::Fair, params), Ok(PoolId(2)));
}

#[test]
fn a_group_moves_with_all_its_units() {
    let mut machine = Machine::new(4);
    let pool = machine.pool(Kind::Fair, &[2, 3]);
    (0..4).for_each(|id| machine.add(id, (id % 2) as u16, Work::Hog, Affinity::pinned(Cpu(0))));
    machine.set_weight_cap(1, 512, 0);
    machine.run_until(10 * MS);
    machine.move_group(1, pool);
    machine.run_until(20 * MS);
    let sched = &machine.sched;
    assert_eq!((sched.pool_of(GroupId(0)), sched.pool_of(GroupId(1))), (Some(FIRST), Some(pool)));
    assert_eq!(sched.weight_cap(GroupId(1)), Some((256, 0)));
    for id in [1, 3] {
        assert!(matches!(sched.whereabouts(UnitId(id)), Some(Place::Running(cpu)) if cpu >= Cpu(2)));
    }
    // The last CPU of those stays, and who was pinned to the other may use it.
    machine.set_affinity(1, Affinity::pinned(Cpu(3)));
    machine.remove_cpu(pool, Cpu(3));
    machine.run_until(30 * MS);
    assert_eq!(machine.sched.affinity(UnitId(1)), Some(Affinity::ANY));
    assert_eq!(machine.sched.remove_cpu(machine.now, pool, Cpu(2)), Err(Refusal::Busy));
    assert_eq!(machine.sched.destroy_pool(pool), Err(Refusal::Busy));
    assert_eq!(machine.sched.move_group(0, GroupId(9), pool), Err(Refusal::Unknown));
    let empty = machine.pool(Kind::Fair, &[]);
    assert_eq!(machine.sched.move_group(0, GroupId(1), empty), Err(Refusal::Unknown));
}

#[test]
fn nobody_runs_outside_of_its_pool() {
    let mut random = Random::for_test("nobody_runs_outside_of_its_pool");
    let mut machine = Machine::new(8);
    let pools = [FIRST, machine.pool(Kind::Fair, &[1]), machine.pool(Kind::Null, &[2, 3])];
    for id in 0..30 {
        let work = if random.below(2) == 0 { Work::Hog } else { Work::Burst { run: MS, sleep: 2 * MS } };
        machine.add(id, (id % 10) as u16, work, Affinity::ANY);
    }
    for _ in 0..500 {
        let (pool, cpu) = (random.pick(&pools), Cpu(1 + random.below(7) as u16));
        match random.below(3) {
            0 => machine.move_group(random.below(10) as u16, pool),
            1 => machine.remove_cpu(pool, cpu),
            _ => machine.add_cpu(pool, cpu),
        }
        machine.run_until(machine.now + random.below(4 * MS));
        for pool in pools {
            let (cpus, groups) = (machine.sched.pool_cpus(pool).unwrap(), machine.sched.pool_groups(pool));
            let mine = (0..30).filter(|id| groups.contains(&GroupId((id % 10) as u16)));
            for id in mine.map(UnitId) {
                match machine.sched.whereabouts(id).unwrap() {
                    Place::Running(cpu) | Place::Queued(cpu) => assert!(cpus.contains(cpu), "{id:?} is on {cpu:?}"),
                    _ => {}
                }
            }
            assert!(groups.is_empty() || !cpus.is_empty(), "{groups:?} have no CPU");
        }
    }
}
