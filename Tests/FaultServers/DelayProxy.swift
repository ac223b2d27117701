import Foundation
import Glibc
import Synchronization

/// Puts a distance between a client and a server of this machine: what either sends arrives half a round trip later, and
/// what comes behind it does not wait for that. Ends with ``stop()``.
package final class DelayProxy: Sendable {
    /// What is on its way in one direction.
    private final class Line: @unchecked Sendable {
        // Sendable: guarded by the condition's lock.
        private var pieces: [(due: ContinuousClock.Instant, bytes: [UInt8])] = []
        private let condition = NSCondition()

        /// No bytes are the end.
        func put(_ bytes: [UInt8], due: ContinuousClock.Instant) {
            condition.withLock { pieces.append((due, bytes)) }
            condition.signal()
        }

        func take() -> [UInt8] {
            let (due, bytes) = condition.withLock {
                while pieces.isEmpty { condition.wait() }
                return pieces.removeFirst()
            }
            let wait = due - .now
            if wait > .zero { usleep(UInt32(wait / .microseconds(1))) }
            return bytes
        }
    }

    private struct State {
        var roundTrip = Duration.zero
        var connections: Set<Int32> = []
        var isStopped = false
    }

    package let port: Int
    private let target: Int
    private let listener: Int32
    private let state = Mutex(State())

    /// - Parameter target: the server's port.
    package init(to target: Int) throws {
        guard let (listener, port) = Loopback.listener() else { throw FaultServer.Failure() }
        self.listener = listener
        self.port = port
        self.target = target
        Thread.detachNewThread { [self] in accept() }
    }

    /// How long the way is from now on: there and back. Connections are made without it.
    package func setRoundTrip(_ time: Duration) { state.withLock { $0.roundTrip = time } }

    /// Closes everything; to be called once.
    package func stop() {
        state.withLock { state in
            state.isStopped = true
            shutdown(listener, Int32(SHUT_RDWR))
            for connection in state.connections { shutdown(connection, Int32(SHUT_RDWR)) }
        }
    }

    private func accept() {
        while true {
            let near = Glibc.accept(listener, nil, nil)
            guard near >= 0 else { return _ = close(listener) }
            guard let far = Loopback.connection(to: target) else {
                close(near)
                continue
            }
            let isWanted = state.withLock { state in
                if !state.isStopped { state.connections.formUnion([near, far]) }
                return !state.isStopped
            }
            guard isWanted else { return [near, far, listener].forEach { close($0) } }
            let ends = Ends()
            pass(near, far, ends)
            pass(far, near, ends)
        }
    }

    /// How many directions of a connection have ended.
    private final class Ends: Sendable {
        private let count = Mutex(0)

        /// True for the second.
        func note() -> Bool {
            count.withLock {
                $0 += 1
                return $0 == 2
            }
        }
    }

    private func pass(_ from: Int32, _ onto: Int32, _ ends: Ends) {
        var yes: Int32 = 1
        setsockopt(onto, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        let line = Line()
        Thread.detachNewThread { [self] in
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            while true {
                let count = recv(from, &buffer, buffer.count, 0)
                line.put(Array(buffer[..<max(0, count)]), due: .now + state.withLock { $0.roundTrip } / 2)
                if count <= 0 { return }
            }
        }
        Thread.detachNewThread { [self] in
            while case let bytes = line.take(), !bytes.isEmpty, Loopback.send(bytes, to: onto) {}
            for descriptor in [from, onto] { shutdown(descriptor, Int32(SHUT_RDWR)) }
            guard ends.note() else { return }
            state.withLock { $0.connections.subtract([from, onto]) }
            for descriptor in [from, onto] { close(descriptor) }
        }
    }
}
