import CLinux
import Glibc
import HSMSystem
import Logging
import Synchronization

/// The one thread that reads a group's events and hands them on.
final class EventReader: Sendable {
    private let link: PendingEvent.Link
    private let handler: EventHandler
    private let log: Logger
    /// In bytes. Each event of one read opens a descriptor, and all of these together may use only a part of the
    /// reserve.
    private let bufferSize: Int
    /// An event's number is its descriptor. Events with this number or a higher one are denied: each may need a second
    /// descriptor for its fill, and the reserve is for fills and `status`.
    private let limit: Int

    init(link: PendingEvent.Link, handler: EventHandler, log: Logger) {
        self.link = link
        self.handler = handler
        self.log = log
        let limit = Capabilities.descriptorLimit().now
        let reserve = Capabilities.descriptorReserve(limit: limit)
        self.limit = (limit - reserve) / 2
        // An event with a range takes 56 bytes.
        bufferSize = min(64 << 10, max(512, reserve / 4 * 56))
    }

    /// Reads until the process ends.
    func start() throws(Errno) { try startThread(name: "events") { [self] in loop() } }

    private func loop() {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            let batch: EventBatch
            do throws(Errno) { batch = try link.group.read(into: buffer) } catch {
                if [EBADF, EINVAL, EFAULT].contains(error.rawValue) {
                    // The guardian, or the next daemon, answers the events that wait.
                    log.critical("events cannot be read any more: \(error.text)")
                    kill(getpid(), SIGKILL)
                    return
                }
                // The kernel could not open the file for its event, and has denied it.
                link.counters.add(.unreadable)
                continue
            }
            for event in batch.events { take(event) }
            if batch.isDamaged {
                log.critical("the kernel sends events of an unknown format")
                kill(getpid(), SIGKILL)
            }
        }
    }

    private func take(_ event: Event) {
        guard event.number >= 0 else {
            if event.kind == .overflow { log.error("the kernel has lost events") }
            return
        }
        let file = Descriptor(owning: event.number)
        let range: Range<Int>?
        switch event.kind {
        case .open: (range, _) = (nil, link.counters.add(.open))
        case .access(let bytes): (range, _) = (bytes, link.counters.add(.access))
        case .overflow, .unknown:
            if event.wantsAnswer { deny(event, file, EIO) }
            return
        }
        if Int(event.number) >= limit && !CallerSyscall.isOwn(event.thread) { return deny(event, file, EAGAIN) }
        do throws(Errno) {
            let handle = try FileHandle(of: file)
            link.table.enter(
                EventTable.Entry(number: event.number, thread: event.thread, range: range, file: handle))
            let waiting = PendingEvent(
                number: event.number, range: range, thread: event.thread, handle: handle, descriptor: file, link: link)
            // This process must not wait for itself. Only regular files have content to fill.
            if try file.stat().st_mode & S_IFMT != S_IFREG || CallerSyscall.isOwn(event.thread) {
                return waiting.answer(nil)
            }
            handler.handle(waiting, file)
        } catch {
            log.error("a file of an event cannot be examined: \(error.text)")
            deny(event, file, EIO)
        }
    }

    /// Denies an event that nothing else answers.
    private func deny(_ event: Event, _ file: Descriptor, _ error: Int32) {
        do throws(Errno) {
            try link.group.answer(event.number, Errno(rawValue: error))
            link.counters.add(.denied)
        } catch { link.counters.add(.abandoned) }
        withExtendedLifetime(file) {}
    }
}
