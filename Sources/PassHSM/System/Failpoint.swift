import Glibc

/// Places at which a debug build can be made to crash or fail, by `PASSHSM_FAILPOINT=NAME:ACTION[:N]` in the
/// environment, or several of these joined by commas. Release builds contain none of it.
///
/// The action happens the N-th time (by default the first) that the place is reached, and at every later time too.
/// EINTR happens once only, because callers answer it with another attempt. `kill` ends the process like a crash.
/// `hang` stops the thread for good, and `pause` for a second. `EAGAIN`, `EIO`, `ENOSPC`, `EINTR` and `ESTALE` are
/// thrown. `short` writes half of the bytes and then fails with ENOSPC. `on` is for ``isOn(_:)``.
package enum Failpoint {
    /// Performs the action that is requested for this place.
    @inlinable
    package static func reach(_ name: StaticString) throws(Errno) {
        #if DEBUG
            try plan.reach("\(name)")
        #endif
    }

    /// How many of `count` bytes may be written at this place.
    @inlinable
    package static func allowed(_ name: StaticString, of count: Int) -> Int {
        #if DEBUG
            if plan.has("\(name)", "short") { return count / 2 }
        #endif
        return count
    }

    /// Whether the build is asked to break one of its own rules, so that tests can show that they would notice.
    @inlinable
    package static func isOn(_ name: StaticString) -> Bool {
        #if DEBUG
            return plan.has("\(name)", "on")
        #else
            return false
        #endif
    }

    #if DEBUG
        @usableFromInline static let plan = FailurePlan(getenv("PASSHSM_FAILPOINT").map { String(cString: $0) } ?? "")
    #endif
}

#if DEBUG
    /// The actions that the environment asks for.
    @usableFromInline final class FailurePlan: Sendable {
        private struct Step {
            let action: String
            let first: Int
            var count = 0
        }

        private let lock = Lock()
        // Guarded by the lock; the names do not change.
        private nonisolated(unsafe) var steps: [String: Step] = [:]
        private let isEmpty: Bool
        private static let errors = [
            "EAGAIN": EAGAIN, "EIO": EIO, "ENOSPC": ENOSPC, "EINTR": EINTR, "ESTALE": ESTALE, "short": ENOSPC,
        ]

        init(_ text: String) {
            for part in text.split(separator: ",") {
                let fields = part.split(separator: ":").map(String.init)
                let isKnown =
                    ["kill", "hang", "pause", "on"].contains(fields.dropFirst().first)
                    || fields.count > 1 && Self.errors[fields[1]] != nil
                precondition(isKnown, "PASSHSM_FAILPOINT: “\(part)” is not NAME:ACTION[:N]")
                steps[fields[0]] = Step(action: fields[1], first: fields.count > 2 ? Int(fields[2]) ?? 1 : 1)
            }
            isEmpty = steps.isEmpty
        }

        @usableFromInline func has(_ name: String, _ action: String) -> Bool {
            !isEmpty && lock.withLock { steps[name]?.action == action }
        }

        @usableFromInline func reach(_ name: String) throws(Errno) {
            if isEmpty { return }
            let action = lock.withLock { () -> String? in
                guard var step = steps[name] else { return nil }
                step.count += 1
                steps[name] = step
                let isOnce = step.action == "EINTR"
                return step.count == step.first || (step.count > step.first && !isOnce) ? step.action : nil
            }
            switch action {
            case "kill":
                kill(getpid(), SIGKILL)
                while true { pause() }
            case "hang": while true { pause() }
            case "pause": sleep(1)
            case let action?:
                if let error = Self.errors[action] { throw Errno(rawValue: error) }
            case nil: break
            }
        }
    }
#endif
