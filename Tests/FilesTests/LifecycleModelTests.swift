import Glibc
import HSMCore
import TestSupport
import Testing

@testable import HSMFiles
@testable import HSMStore

/// Threads that use, open, change, commit, sweep and release one file, in random order of their steps, against a simple model
/// of the disk. What happens under the leaf lock is one step; a step that needs the transition lock waits for it.
@Suite struct LifecycleModelTests {
    /// The store's object for the content, as far as the lifecycle's facts tell of it.
    private final class Stored: @unchecked Sendable {
        // Sendable: used by one thread.
        var hasPending = false
        var isFinished = false
        var isComplete = false
        var fetches = 0
    }

    /// The file on disk, and those who use it.
    private struct World {
        var lifecycle: Lifecycle<Stored>
        /// By the record.
        var isComplete: Bool
        var isDirty = false
        /// Written locally: from then on the record has to say dirty.
        var isWritten = false
        var changeTime = 1
        var objects: [Stored] = []
        var leases = 0
        var handles = 0
        var transition: Int?
        /// What became of it, so that a run that tests nothing is noticed.
        var counts: [String: Int] = [:]

        init(keepsResidence: Bool, isComplete: Bool) {
            self.isComplete = isComplete
            let residence = isComplete ? Residence.dual([]) : Self.offline
            lifecycle = Lifecycle(keepsResidence ? residence : nil)
        }

        static let time = RemoteEntry.Time(seconds: 0, nanoseconds: 0)
        static let offline = Residence.incomplete(.offline, [], modified: time)

        var residence: Residence { isComplete ? .dual(isDirty ? .dirty : []) : Self.offline }
        var flags: Record.Flags { isDirty ? .dirty : [] }

        mutating func count(_ what: String) { counts[what, default: 0] += 1 }

        var status: stat {
            var status = stat()
            status.st_ctim.tv_sec = changeTime
            return status
        }

        mutating func writeRecord() { changeTime += 1 }
    }

    /// Takes a step, and says whether it was taken: not while another thread has the lock that it needs.
    private typealias Step = (_ thread: Int, _ world: inout World) -> Bool

    // MARK: Programs

    private static func step(_ body: @escaping (inout World) -> Void) -> Step {
        { _, world in
            body(&world)
            return true
        }
    }

    private static func lock(_ thread: Int, _ world: inout World) -> Bool {
        if world.transition != nil { return false }
        world.transition = thread
        return true
    }

    private static func unlock(_ thread: Int, _ world: inout World) -> Bool {
        #expect(world.transition == thread)
        world.transition = nil
        return true
    }

    private final class Local {
        var stored: Stored?
        var uses: UInt32 = 0
        var facts = Lifecycle<Stored>.Facts(isFinished: false, hasPending: false, isIdle: false)
        var isTaken = false
        var mark: DirtyMark?
    }

    private static func isIdle(_ stored: Stored) -> Bool { stored.fetches == 0 }

    /// As `ManagedFiles.deactivate(_:)`.
    private static func deactivation(_ local: Local) -> [Step] {
        [
            step { world in
                local.stored = world.lifecycle.unusedContent
                if let stored = local.stored, !isIdle(stored) || stored.hasPending { local.stored = nil }
            },
            lock,
        ] + lockedDeactivation(local) + [unlock]
    }

    private static func lockedDeactivation(_ local: Local) -> [Step] {
        [
            step { world in local.uses = world.lifecycle.beginDeactivation() },
            step { _ in if let stored = local.stored { local.facts.isFinished = stored.isFinished } },
            step { _ in if let stored = local.stored { local.facts.hasPending = stored.hasPending } },
            step { _ in if let stored = local.stored { local.facts.isIdle = isIdle(stored) } },
            step { world in
                guard let stored = local.stored else { return }
                let isHeld = world.leases > 0
                guard world.lifecycle.deactivate(stored, local.facts, since: local.uses, world.residence) else {
                    return
                }
                #expect(!isHeld || stored.isFinished, "deactivated while it was leased")
                #expect(!stored.hasPending || stored.isFinished, "deactivated with what only it knows")
                #expect(stored.fetches == 0 || stored.isFinished)
                world.count("deactivated")
            },
        ]
    }

    /// As `ManagedFiles.lease(_:)`, a fetch, and the end of the lease.
    private static func use(completes: Bool, writes: Bool) -> [Step] {
        let local = Local()
        return [
            lock,
            step { world in
                switch world.lifecycle.lease() {
                case .leased(let stored): (local.stored, local.isTaken) = (stored, true)
                case .complete: break
                case .refused: Issue.record("a record that cannot be believed")
                case .load: local.isTaken = !world.isComplete
                }
                if local.stored != nil { world.leases += 1 }
            },
            step { world in
                guard local.isTaken, local.stored == nil else { return }
                let live = world.objects.filter { ($0.hasPending || $0.fetches > 0) && !$0.isFinished }
                #expect(live.isEmpty, "two objects for one file")
                let stored = Stored()
                world.objects.append(stored)
                world.lifecycle.activate(stored)
                local.stored = stored
                world.leases += 1
                world.count("activated")
            },
            unlock,
            step { _ in local.stored?.fetches += 1 },
            step { world in
                guard let stored = local.stored else { return }
                if writes, !stored.isFinished { (world.isDirty, world.isWritten) = (true, true) }
                if completes { stored.isComplete = true }
                stored.hasPending = true
                stored.fetches -= 1
            },
            step { world in
                guard local.isTaken else { return }
                world.lifecycle.endLease()
                world.leases -= 1
            },
        ] + deactivation(local)
    }

    /// chmod(2) and the like: no lease, and the content has to record it.
    private static func change() -> [Step] {
        [
            step { world in
                world.lifecycle.noteUserChange()
                world.lifecycle.content?.hasPending = true
                world.count("changed")
            }
        ]
    }

    private static func commit() -> [Step] {
        let local = Local()
        return [
            step { world in
                guard let stored = world.lifecycle.content, stored.hasPending else { return }
                stored.hasPending = false
                if stored.isComplete {
                    stored.isFinished = true
                    world.isComplete = true
                }
                world.writeRecord()
            }
        ] + deactivation(local)
    }

    /// Opens an active file, and reads what has to be fetched.
    private static func read() -> [Step] {
        let local = Local()
        return [
            step { world in
                guard world.lifecycle.content != nil else { return }
                world.lifecycle.openHandle(isServed: true, isWritable: false)
                world.handles += 1
                local.isTaken = true
            },
            step { world in
                guard local.isTaken else { return }
                local.stored = world.lifecycle.content
                #expect(local.stored != nil, "deactivated while it was open")
                local.stored?.fetches += 1
            },
            step { _ in
                local.stored?.hasPending = true
                local.stored?.fetches -= 1
            },
            step { world in
                guard local.isTaken else { return }
                world.lifecycle.closeHandle(isServed: true, isWritable: false)
                world.handles -= 1
            },
        ] + deactivation(local)
    }

    /// Opens a complete file for writing, as both front ends do, and perhaps writes.
    private static func write(_ writes: Bool) -> [Step] {
        let local = Local()
        return [
            lock,
            step { world in
                guard world.lifecycle.content == nil, world.isComplete else { return }
                local.isTaken = true
                if !world.isDirty {
                    world.isDirty = true
                    world.writeRecord()
                    world.lifecycle.becomeDirty(DirtyMark(world.status, showing: timespec()))
                }
                world.lifecycle.openHandle(isServed: false, isWritable: true)
                world.handles += 1
            },
            unlock,
            step { world in
                if local.isTaken && writes {
                    world.isWritten = true
                    world.changeTime += 1
                }
            },
            step { world in
                guard local.isTaken else { return }
                world.lifecycle.closeHandle(isServed: false, isWritable: true)
                world.handles -= 1
            },
        ] + unmark()
    }

    private static func unmark() -> [Step] {
        let local = Local()
        return [
            lock,
            step { world in local.mark = world.lifecycle.takeMark() },
            step { world in
                guard let mark = local.mark else { return }
                // What the store compares.
                guard mark.kept(before: world.status, after: world.status) != nil else { return }
                world.isDirty = false
                world.writeRecord()
                world.lifecycle.becomeClean()
                world.count("cleaned")
            },
            unlock,
        ]
    }

    private static func pin() -> [Step] {
        [
            lock,
            step { world in
                guard world.lifecycle.content == nil else { return }
                let before = world.status
                world.writeRecord()
                world.lifecycle.noteRecordWritten(before: before, after: world.status)
            },
            unlock,
        ]
    }

    private static func sweep() -> [Step] {
        [step { world in _ = world.lifecycle.sweep() }] + deactivation(Local()) + unmark()
    }

    private static func release() -> [Step] {
        let local = Local()
        return [
            lock,
            step { world in
                local.stored = world.lifecycle.content
                guard let stored = local.stored else { return }
                if world.lifecycle.obstacle(isIdle: isIdle(stored)) != nil { local.stored = nil }
            },
        ] + lockedDeactivation(local) + [
            step { world in
                let (isUsed, isDirty) = (world.leases > 0 || world.handles > 0, world.isDirty)
                guard world.lifecycle.beginRelease(world.flags, modified: World.time) == nil else { return }
                #expect(!isUsed && !isDirty && !world.isWritten, "released while it was used, or with changes")
                #expect(world.lifecycle.content == nil)
                world.isComplete = false
                world.writeRecord()
                world.lifecycle.note(world.residence)
                world.count("released")
            },
            unlock,
        ]
    }

    private static func program(_ random: inout SeededRandom) -> [Step] {
        switch Int.random(in: 0..<14, using: &random) {
        case 0...2: use(completes: Bool.random(using: &random), writes: Int.random(in: 0..<20, using: &random) == 0)
        case 3: change()
        case 4, 5: commit()
        case 6: read()
        case 7, 8: write(Int.random(in: 0..<20, using: &random) == 0)
        case 9: pin()
        case 10, 11: sweep()
        default: release()
        }
    }

    // MARK: Runs

    private static func run(_ seed: UInt64, keepsResidence: Bool, _ total: inout [String: Int]) {
        var random = SeededRandom(seed: seed)
        var world = World(keepsResidence: keepsResidence, isComplete: Bool.random(using: &random))
        var programs = (0..<4).map { _ in program(&random)[...] }
        var steps = 0
        while steps < 400 {
            let thread = Int.random(in: 0..<programs.count, using: &random)
            guard let first = programs[thread].first else {
                programs[thread] = program(&random)[...]
                continue
            }
            if first(thread, &world) { programs[thread].removeFirst() }
            steps += 1
            #expect(world.lifecycle.leases == world.leases)
            #expect(!world.isWritten || world.isDirty, "a file with local changes became clean")
            #expect(!world.isWritten || !world.lifecycle.isClean)
        }
        total.merge(world.counts, uniquingKeysWith: +)
    }

    @Test(
        "However the steps of four threads are interleaved, one object stands for the file, and no change is lost",
        arguments: [true, false])
    func interleaved(keepsResidence: Bool) {
        var counts: [String: Int] = [:]
        for seed in 0..<1000 { Self.run(UInt64(seed), keepsResidence: keepsResidence, &counts) }
        for what in ["activated", "deactivated", "cleaned", "released", "changed"] {
            #expect(counts[what, default: 0] > 150, "\(counts)")
        }
    }
}
