import CLinux
import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// Random operations against byte arrays: the whole of it, through the mount.
    ///
    /// `PASSHSM_SEED=N` replays one run's choices; `PASSHSM_STEPS=N` sets how many operations there are.
    @Suite struct RandomOperations {
        private static let environment = ProcessInfo.processInfo.environment
        private static let steps = Int(environment["PASSHSM_STEPS"] ?? "") ?? (Machine.isLong ? 100_000 : 2500)

        @Test(
            "Whatever is done in whatever order, with crashes: a read gets what a byte array has, or EIO where it may")
        func operations() throws {
            let random = SeededRandom(for: "random operations")
            try withScratch { scratch in
                let mirror = try Mirror(scratch, apart: true)
                defer { _ = mirror.cleanUp() }
                let run = try Run(mirror, random)
                for step in 0..<Self.steps {
                    do { try run.step() } catch { throw Failure("seed \(random.seed), step \(step): \(error)") }
                }
                try run.end()
                print("random operations: \(run.counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" })")
            }
        }
    }
}

extension MountTests.RandomOperations {
    /// One run: the mirror, the models of its files, and what is open.
    final class Run {
        struct Handle {
            let file: Descriptor
            let model: Model
            let isWritable: Bool
            let isAppending: Bool
            let isDirect: Bool
        }

        let mirror: Mirror
        var random: SeededRandom
        let models = (0..<8).map { Model("f\($0)") }
        var handles: [Handle] = []
        /// How often each operation was done, and how often it was refused.
        private(set) var counts: [String: Int] = [:]
        private var versions = 0
        private var refetches = false
        /// Changes in a hundred that are made: while there are few of them, files can be released and take new versions.
        private var changes = 0
        /// Most of what is done is done to this one.
        private var favourite = 0
        private var stirrer: Child?

        init(_ mirror: Mirror, _ random: SeededRandom) throws {
            (self.mirror, self.random) = (mirror, random)
            for model in models { try changeRemote(model) }
            try mirror.importSource()
            for model in models { model.imported() }
            try begin()
        }

        func count(_ what: String) { counts[what, default: 0] += 1 }

        func step() throws {
            let model = random.isTrue(60) ? models[favourite] : models[random.below(models.count)]
            switch random.below(1000) {
            case ..<400: try read(model)
            case ..<660: if random.isTrue(changes) { try change(model) } else { try read(model) }
            case ..<740: try keepOpen(model)
            case ..<800: if !handles.isEmpty { handles.remove(at: random.below(handles.count)) }
            case ..<820: try sync(model)
            case ..<870: try command("release", model)
            case ..<885: try command("recall", model)
            case ..<895: try command(random.isTrue(30) ? "pin" : "unpin", model)
            case ..<920: try changeRemote(model)
            case ..<925: removeRemote(model)
            case ..<975: try checkSize(model)
            case ..<983: try restart(crashes: true)
            case ..<985: try restart(crashes: false)
            case ..<998: try importAgain()
            default: try checkAll()
            }
        }

        private func change(_ model: Model) throws {
            switch random.below(100) {
            case ..<50: try write(model)
            case ..<65: try truncate(model)
            case ..<80: try punch(model)
            case ..<90: try map(model)
            default: try copy(model, models[random.below(models.count)])
            }
        }

        func end() throws {
            try restart(crashes: true)
            try checkAll()
            try finish()
            try mirror.stop()
            let output = try passhsm("verify", mirror.lower)
            guard output.code == 0 else { throw Failure("\(output)") }
        }

        // MARK: Sessions

        private func begin() throws {
            refetches = random.isTrue(50)
            changes = [0, 1, 20, 80][random.below(4)]
            favourite = random.below(models.count)
            var arguments = ["--fill", ["read", "read", "auto", "open"][random.below(4)]]
            arguments += ["--on-change", refetches ? "refetch" : "error"]
            if random.isTrue(30) { arguments.append("--no-passthrough") }
            try mirror.start(
                arguments, remote: random.isTrue(50) ? "latency=1ms,bandwidth=200M" : "latency=0ms", limit: 3600)
            if random.isTrue(50) {
                let script = """
                    while sleep 0.0$((RANDOM % 10)); do
                        dd if="$1/f$((RANDOM % 8))" of=/dev/null bs=100k skip=$((RANDOM % 20)) count=1 status=none
                    done 2>/dev/null
                    """
                stirrer = try Child(["bash", "-c", script, "bash", mirror.mount])
            }
        }

        /// Closes everything.
        private func finish() throws {
            handles = []
            stirrer?.kill(SIGKILL)
            _ = try stirrer?.wait(seconds: 10)
            stirrer = nil
        }

        private func restart(crashes: Bool) throws {
            count(crashes ? "kill -9" : "unmount")
            for model in models { model.note(crashes ? "kill -9" : "unmount") }
            if crashes {
                try mirror.killDaemon()
                try finish()
            } else {
                try finish()
                // The stirrer's last dd may still have a file open.
                try until("the end of the mount") { (try? mirror.stop()) != nil }
            }
            try begin()
            if random.isTrue(10) { try checkAll() }
        }

        /// Stops, removes some of the changed files, and imports what there is now.
        private func importAgain() throws {
            count("import")
            try finish()
            try until("the end of the mount") { (try? mirror.stop()) != nil }
            let removed = models.filter { $0.mayBeDirty && random.isTrue(90) }
            for model in removed where model.isGone { try changeRemote(model) }
            for model in removed { unlink(mirror.tree + "/" + model.name) }
            let output = try run([Machine.program, "import", "--restore", mirror.source, mirror.lower])
            guard output.code <= 1 else { throw Failure("\(output)") }
            for model in models {
                if removed.contains(where: { $0 === model }) { model.imported() } else { model.mayRefetch() }
                model.note("import")
            }
            try begin()
        }

        // MARK: The remote

        private func changeRemote(_ model: Model) throws {
            count("remote change")
            versions += 1
            let most = [2000, 300_000, 3_000_000, 3_000_000][random.below(4)]
            let bytes = Pattern.bytes(0..<random.below(most), seed: versions)
            let path = mirror.remote(model.name)
            let file = try File.open(path + ".new", O_WRONLY | O_CREAT)
            try file.put(bytes, at: 0)
            // No two versions of a file have the same time.
            let time = timespec(tv_sec: 1_000_000_000 + versions, tv_nsec: 0)
            try file.setTimes(access: time, modification: time)
            rename(path + ".new", path)
            model.note("remote version \(versions), \(bytes.count) bytes")
            model.remoteChanged(to: bytes, version: versions)
        }

        private func removeRemote(_ model: Model) {
            count("remote removal")
            model.note("remote removed")
            unlink(mirror.remote(model.name))
            model.isGone = true
        }

        // MARK: Handles

        /// A handle of the file, kept or for this once; nil when it may be refused, and was.
        func handle(_ model: Model, writing: Bool) throws -> Handle? {
            let kept = handles.filter { $0.model === model && ($0.isWritable || !writing) }
            if let handle = kept.randomElement(using: &random), random.isTrue(60) { return handle }
            var flags = writing || random.isTrue(20) ? O_RDWR : O_RDONLY
            let isWritable = flags == O_RDWR
            if writing && random.isTrue(15) { flags |= O_APPEND }
            if random.isTrue(10) { flags |= PASSHSM_O_DIRECT }
            if refetches && !handles.contains(where: { $0.model === model }) { model.mayRefetch() }
            if isWritable { model.mayBeDirty = true }
            model.note("open \(isWritable ? "for writing" : "")")
            return try attempt("open", model) {
                Handle(
                    file: try File.open(mirror.at(model.name), flags), model: model, isWritable: isWritable,
                    isAppending: flags & O_APPEND != 0, isDirect: flags & PASSHSM_O_DIRECT != 0)
            }
        }

        private func keepOpen(_ model: Model) throws {
            guard let handle = try handle(model, writing: random.isTrue(50)) else { return }
            handles.append(handle)
            if handles.count > 6 { handles.removeFirst() }
        }

        /// Does it; nil when it failed with EIO, and that may be.
        func attempt<Result>(_ what: String, _ model: Model, _ body: () throws -> Result) throws -> Result? {
            count(what)
            do { return try body() } catch let error as Errno where error.rawValue == EIO && model.mayFail {
                count("\(what): EIO")
                model.note("\(what): EIO")
                return nil
            } catch {
                throw Failure("\(what) of \(model.name): \(error); \(model.history); \(mirror.log.suffix(500))")
            }
        }

        func wrong(_ model: Model, _ what: String) -> Failure {
            Failure(
                "\(model.name) \(what); \(model.candidates.map { "\($0.version): \($0.bytes.count)" }); \(model.history)"
            )
        }
    }
}
