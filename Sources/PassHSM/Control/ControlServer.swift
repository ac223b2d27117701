import Glibc
import HSMSystem

/// A daemon's control socket: one JSON request a line, one JSON reply a line, any number of them a connection.
///
/// It serves on its own threads: one that accepts, and for each user one for each connection, up to
/// ``Limits/connections``. A client that sends garbage, too much or nothing, or goes away, harms only its own
/// connection. A user who holds all connections that he may have keeps no other user waiting.
package final class ControlServer: Sendable {
    package struct Limits: Sendable {
        /// The largest request, in bytes.
        package var requestBytes = 1 << 20
        /// Seconds in which a request has to arrive, and its reply has to be taken.
        package var seconds = 5.0
        /// Connections of one user that are served at once; further ones wait.
        package var connections = 32
        /// Connections of one user that wait; further ones are refused.
        package var waiting = 64

        package init() {}
    }

    private struct State {
        struct User {
            /// Connections that are served or wait.
            var connections = 0
            var waiting: [LocalSocket] = []
            /// Threads that serve, each one connection after the other.
            var threads = 0
        }

        /// By user id.
        var users: [UInt32: User] = [:]
        var isStopping = false
        var isAccepting = true
    }

    private let handlers: ControlHandlers
    private let limits: Limits
    private let users: Set<UInt32>
    private let socket: LocalSocket
    private let registration: DaemonRegistration
    /// ``stop()`` writes to it, and so wakes the accepting thread.
    private let wake: (reader: Descriptor, writer: Descriptor)
    private let condition = Condition()
    /// Guarded by `condition`'s lock, a leaf lock: nothing is called while it is held.
    private nonisolated(unsafe) var state = State()

    /// Listens in the daemon's folder, and serves until ``stop()``.
    ///
    /// - Parameter users: the users whose requests are served. The folder keeps others out already, but a descriptor of
    ///   the socket could have been handed on.
    package init(
        _ registration: DaemonRegistration, handlers: ControlHandlers, limits: Limits = Limits(),
        users: Set<UInt32> = [OwnProcess.user, 0]
    ) throws(ControlError) {
        self.users = users
        self.handlers = handlers
        self.limits = limits
        self.registration = registration
        do throws(Errno) {
            socket = try LocalSocket.listen(RuntimeDirectory.socketName, in: registration.folder)
            wake = try ChildProcess.pipe()
        } catch {
            throw ControlError(.registry, "cannot listen on the control socket: \(error.text)")
        }
        do throws(Errno) { try startThread(name: "hsm-control") { [self] in acceptLoop() } } catch {
            throw ControlError(.registry, "cannot start a thread for the control socket: \(error.text)")
        }
    }

    /// Takes no more connections, and removes the daemon from the registry; requests under way are still answered. May
    /// be called again, and from a handler.
    package func stop() {
        condition.lock()
        let isFirst = !state.isStopping
        state.isStopping = true
        condition.unlock()
        if isFirst {
            var byte: UInt8 = 0
            _ = write(wake.writer.raw, &byte, 1)
        }
        condition.broadcast()
        condition.lock()
        while state.isAccepting { condition.wait() }
        condition.unlock()
        registration.remove()
    }

    // MARK: Connections

    private func acceptLoop() {
        while waitForConnection() {
            // The daemon is out of descriptors or memory: the client waits in the backlog until there are some again.
            guard let connection = try? socket.accept() else {
                usleep(10_000)
                continue
            }
            guard let user = try? connection.peerUser(), users.contains(user) else { continue }
            admit(connection, of: user)
        }
        condition.lock()
        state.isAccepting = false
        condition.unlock()
        condition.broadcast()
    }

    /// Never waits, because the accepting thread calls it.
    private func admit(_ connection: LocalSocket, of user: UInt32) {
        condition.lock()
        var own = state.users[user] ?? State.User()
        let isRefused = own.connections >= limits.connections + limits.waiting
        let needsThread = !isRefused && own.threads < limits.connections
        if !isRefused {
            own.connections += 1
            own.waiting.append(connection)
        }
        if needsThread { own.threads += 1 }
        state.users[user] = own
        condition.unlock()
        if needsThread {
            do throws(Errno) {
                try startThread(name: "hsm-control-req") { [self] in serveAll(of: user) }
            } catch {
                // Short requests are answered without a thread of their own, too.
                serveAll(of: user, refusingWork: error)
            }
        } else if isRefused {
            let error =
                "user \(user) has \(limits.connections + limits.waiting) connections to the daemon; try again later"
            try? send(ControlReply(error: error), connection, seconds: 0)
        }
    }

    private func serveAll(of user: UInt32, refusingWork refusal: Errno? = nil) {
        while let connection = next(of: user) {
            serve(connection, refusingWork: refusal)
            condition.lock()
            state.users[user]?.connections -= 1
            condition.unlock()
        }
    }

    /// Takes the connection of `user` that has waited longest. Nil ends the calling thread.
    private func next(of user: UInt32) -> LocalSocket? {
        condition.lock()
        defer { condition.unlock() }
        if state.users[user]?.waiting.isEmpty == false { return state.users[user]?.waiting.removeFirst() }
        state.users[user]?.threads -= 1
        return nil
    }

    /// Returns false when the server stops.
    private func waitForConnection() -> Bool {
        var polled = [
            pollfd(fd: socket.descriptor.raw, events: Int16(POLLIN), revents: 0),
            pollfd(fd: wake.reader.raw, events: Int16(POLLIN), revents: 0),
        ]
        while poll(&polled, 2, -1) < 0 && errno == EINTR {}
        return polled[1].revents == 0
    }

    /// - Parameter refusal: the reason why there is no thread for work that takes long.
    private func serve(_ connection: LocalSocket, refusingWork refusal: Errno? = nil) {
        do throws(Errno) {
            while true {
                let line = try connection.readLine(
                    limit: limits.requestBytes, until: Deadline(seconds: limits.seconds))
                switch Self.request(line) {
                case .success(let request): try answer(request, connection, refusingWork: refusal)
                case .failure(let error): try send(ControlReply(error: "invalid request: \(error)"), connection)
                }
            }
        } catch {
            // The client is gone, is too slow (then it gets no further message), or sends without end.
            if error.rawValue == EMSGSIZE {
                try? send(ControlReply(error: "the request is longer than \(limits.requestBytes) bytes"), connection)
            }
        }
    }

    private static func request(_ line: [UInt8]) -> Result<ControlRequest, RequestError> {
        do { return .success(try ControlJSON.decode(ControlRequest.self, from: line)) } catch {
            let text = ArgumentText.readable(ArgumentText.encode(line.prefix(60)))
            return .failure(error as? RequestError ?? RequestError(text))
        }
    }

    private func answer(
        _ request: ControlRequest, _ connection: LocalSocket, refusingWork refusal: Errno?
    ) throws(Errno) {
        switch request {
        case .status: try send(ControlReply(status: handlers.status()), connection)
        case .drain:
            handlers.drain()
            try send(ControlReply(), connection)
        case .stop(let force):
            try send(ControlReply(), connection)
            handlers.stop(force)
        case .state(let path):
            let reply: ControlReply
            do throws(Errno) { reply = ControlReply(state: try handlers.state(path)) } catch {
                reply = ControlReply(error: error.text)
            }
            try send(reply, connection)
        case .files(let work):
            if let refusal {
                return try send(ControlReply(error: "cannot start a thread for this: \(refusal.text)"), connection)
            }
            handlers.files(work) { reply in (try? send(reply, connection)) != nil }
        }
    }

    /// - Parameter seconds: the time in which the client has to take the reply; nil: ``Limits/seconds``.
    private func send(_ reply: ControlReply, _ connection: LocalSocket, seconds: Double? = nil) throws(Errno) {
        // Encoding fails only for numbers that JSON cannot hold, and reports have none.
        guard let line = try? ControlJSON.encode(reply) else { throw Errno(rawValue: EINVAL) }
        try connection.write(line + [UInt8(ascii: "\n")], until: Deadline(seconds: seconds ?? limits.seconds))
    }
}
