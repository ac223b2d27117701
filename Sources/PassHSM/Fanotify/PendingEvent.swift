import Glibc
import HSMSystem
import Synchronization

/// An event with a thread that waits for its answer. It is answered once. An event that is dropped unanswered is
/// answered with EIO.
final class PendingEvent: Sendable {
    let number: Int32
    /// Nil: an open.
    let range: Range<Int>?
    let thread: Int32
    let handle: FileHandle
    private let link: Link
    /// Keeps the event's number in use, so that no other event gets it before the answer. Nil afterwards.
    private let descriptor: Mutex<Descriptor?>
    private let isAnswered = Atomic<Bool>(false)
    private let isOver = Atomic<Bool>(false)
    let holdsNumber: Bool

    /// The parts that every answer needs, shared by all events.
    final class Link: Sendable {
        let group: EventGroup
        let table: EventTable
        let counters = EventCounters()

        init(_ group: EventGroup, _ table: EventTable) {
            self.group = group
            self.table = table
        }
    }

    /// - Parameter descriptor: the event's own, or a placeholder that keeps its number in use. Nil when there is
    ///   neither: then no event may be read before this one is answered.
    init(
        number: Int32, range: Range<Int>?, thread: Int32, handle: FileHandle, descriptor: Descriptor?, link: Link
    ) {
        self.number = number
        self.range = range
        self.thread = thread
        self.handle = handle
        self.link = link
        self.descriptor = Mutex(descriptor)
        holdsNumber = descriptor != nil
    }

    deinit {
        if !isAnswered.load(ordering: .acquiring) { answer(Errno(rawValue: EIO)) }
    }

    var isOpen: Bool { range == nil }
    /// It was answered, and the kernel has the answer.
    var hasEnded: Bool { isOver.load(ordering: .acquiring) }

    /// Nil allows it. To be called once; a second call is a fault of the program, and changes nothing.
    func answer(_ refusal: Errno?) {
        if isAnswered.exchange(true, ordering: .acquiringAndReleasing) {
            link.counters.add(.answeredTwice)
            assertionFailure("an event was answered twice")
            return
        }
        do throws(Errno) {
            try link.group.answer(number, refusal)
            link.counters.add(refusal == nil ? .allowed : .denied)
        } catch {
            // ENOENT: the waiting thread was killed.
            link.counters.add(error.rawValue == ENOENT ? .abandoned : .unanswered)
        }
        link.table.remove(number)
        isOver.store(true, ordering: .releasing)
        // Last: from here on the kernel may give its number to another event.
        let last = descriptor.withLock { $0.take() }
        _ = consume last
    }
}
