import Glibc
import HSMSystem
import Logging

/// The process that makes the front end fail closed. It holds the group's descriptor: when the last holder of that
/// ends, the kernel allows every access that waits.
///
/// When the daemon dies, waiting accesses go on waiting until a new daemon takes over, or the time for that is over.
/// From then on the guardian denies every access with EIO, until a daemon takes over after all, or the mount is gone.
/// The guardian has one thread. It touches neither the mount nor the lower file system.
package final class Guardian {
    private struct GuardedState {
        let mount: GuardedMount
        let group: EventGroup
        let table: EventTable
        let descriptors: [Descriptor]
    }

    private let address: GuardianAddress
    private let listener: LocalSocket
    private let log: Logger
    private var kept: GuardedState?
    /// The daemon's connection; nil when it is gone.
    private var daemon: LocalSocket?
    private var clients: [LocalSocket] = []
    /// The time from which every access is denied; set when the daemon is gone.
    private var denial = ContinuousClock.now
    private var isDenying = false
    private var isEnding = false
    private let start = ContinuousClock.now
    private var nextLook = ContinuousClock.now
    /// How long the guardian waits for its first daemon.
    private static let firstDaemonTimeout = Duration.seconds(15)
    private static let period: Int32 = 100
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)

    /// Listens at `address`. - Throws: EADDRINUSE when another guardian does.
    package init(_ address: GuardianAddress, log: Logger) throws(Errno) {
        self.address = address
        self.log = log
        // A guardian that is ending may still listen for a moment.
        let deadline = Deadline(seconds: 5)
        while (try? GuardianLink(address)) != nil {
            if deadline.hasPassed { throw Errno(rawValue: EADDRINUSE) }
            usleep(20_000)
        }
        // A guardian that was killed has left its socket.
        unlinkat(address.folder.raw, address.name, 0)
        listener = try LocalSocket.listen(address.name, in: address.folder)
    }

    deinit { buffer.deallocate() }

    /// Guards until there is nothing left to guard.
    package func run() {
        // The end of this process could let every reader through. So it ignores the signals that end processes in bulk,
        // and the kernel does not pick it when memory is short.
        for number in [SIGTERM, SIGINT, SIGHUP, SIGPIPE] { signal(number, SIG_IGN) }
        if let file = try? Descriptor.open("/proc/self/oom_score_adj", O_WRONLY) {
            _ = Array("-1000".utf8).withUnsafeBytes { Glibc.write(file.raw, $0.baseAddress, $0.count) }
        }
        Capabilities.raiseDescriptorLimit()
        defer { unlinkat(address.folder.raw, address.name, 0) }
        while !isDone { wait() }
    }

    private var isDone: Bool {
        guard let kept else { return ContinuousClock.now - start > Self.firstDaemonTimeout }
        guard daemon == nil, .now >= nextLook else { return false }
        let (hasMount, pause) = kept.group.look(for: kept.mount.mountID)
        nextLook = .now + pause
        if hasMount { return false }
        denyWaiting(kept)
        return true
    }

    private func wait() {
        if let kept, daemon == nil, !isDenying, isEnding || ContinuousClock.now >= denial {
            if !isEnding { log.error("no daemon has taken over \(kept.mount.mountpoint): every access is denied") }
            isDenying = true
            denyWaiting(kept)
        }
        let sockets = [listener] + clients + (daemon.map { [$0] } ?? [])
        var polls = sockets.map { pollfd(fd: $0.descriptor.raw, events: Int16(POLLIN), revents: 0) }
        if isDenying, let kept {
            polls.append(pollfd(fd: kept.group.descriptor.raw, events: Int16(POLLIN), revents: 0))
        }
        guard poll(&polls, nfds_t(polls.count), Self.period) > 0 else { return }
        // In reverse, so that the end of the old daemon is seen before the request of a new one.
        for (socket, poll) in zip(sockets, polls).reversed() where poll.revents != 0 {
            if socket === listener { accept() } else { serve(socket) }
        }
        if isDenying, daemon == nil, let kept, polls.last?.revents != 0, polls.count > sockets.count { denyNext(kept) }
    }

    // MARK: Denying

    /// Denies the events that the daemon had read.
    private func denyWaiting(_ kept: GuardedState) {
        let limit = max(kept.table.count, Capabilities.descriptorLimit().now)
        let denied = kept.group.denyAll(below: limit)
        for number in 0..<Int32(clamping: kept.table.count) { kept.table.remove(number) }
        if denied > 0 { log.warning("denied \(denied) accesses that waited") }
    }

    /// Reads new events and denies them.
    private func denyNext(_ kept: GuardedState) {
        // The read fails for an event that the kernel has denied itself.
        guard let batch = try? kept.group.read(into: buffer) else { return }
        for event in batch.events where event.number >= 0 {
            if event.wantsAnswer { try? kept.group.answer(event.number, Errno(rawValue: EIO)) }
            close(event.number)
        }
    }

    // MARK: Requests

    private func accept() {
        guard let client = (try? listener.accept()) ?? nil, (try? client.peerUser()) == geteuid() else { return }
        clients.append(client)
    }

    private func drop(_ socket: LocalSocket) {
        clients.removeAll { $0 === socket }
        guard socket === daemon, let kept else { return }
        daemon = nil
        denial = .now + kept.mount.takeover
        if !isEnding {
            log.warning("the daemon of \(kept.mount.mountpoint) is gone; accesses wait for the next daemon")
        }
    }

    private func serve(_ socket: LocalSocket) {
        let deadline = Deadline(seconds: 1)
        do {
            let (line, descriptors) = try socket.receive(until: deadline)
            let request = try GuardianCoding.decode(GuardianRequest.self, line)
            let answer = answer(request, socket, descriptors)
            var passed: [Descriptor] = []
            if case .take = request, case .kept = answer { passed = kept?.descriptors ?? [] }
            try socket.send(try GuardianCoding.encode(answer), passed, until: deadline)
        } catch {
            drop(socket)
        }
    }

    private func answer(
        _ request: GuardianRequest, _ socket: LocalSocket, _ descriptors: [Descriptor]
    ) -> GuardianAnswer {
        switch request {
        case .keep(let mount):
            guard kept == nil, descriptors.count == 3, let table = try? EventTable(descriptors[1]) else {
                return .refused("something is kept already")
            }
            kept = GuardedState(mount: mount, group: EventGroup(descriptors[0]), table: table, descriptors: descriptors)
            serveFrom(socket)
            return .done
        case .take:
            guard let kept, daemon == nil, !isEnding else { return .refused("a daemon serves it") }
            serveFrom(socket)
            return .kept(kept.mount, isServed: true)
        case .tell:
            guard let kept else { return .refused("nothing is kept") }
            return .kept(kept.mount, isServed: daemon != nil)
        case .end:
            if let daemon, daemon !== socket { return .refused("a daemon serves it") }
            isEnding = true
            return .done
        }
    }

    private func serveFrom(_ socket: LocalSocket) {
        clients.removeAll { $0 === socket }
        daemon = socket
        isDenying = false
    }
}
