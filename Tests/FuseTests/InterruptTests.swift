import HSMFuse
import TestSupport
import Testing

@testable import HSMFuseDoor

@Suite struct InterruptTests {
    private let interrupts = Interrupts()

    /// Begins a wait that sets `flag` at its interrupt.
    private func begin(_ unique: UInt64) -> Flag {
        let flag = Flag()
        interrupts.begin(unique) { flag.set() }
        return flag
    }

    @Test("An interrupt calls the handler of its own request")
    func own() {
        let (first, second) = (begin(2), begin(4))
        interrupts.interrupt(4)
        #expect(!first.isSet && second.isSet)
        #expect(!interrupts.isInterrupted(2) && interrupts.isInterrupted(4))
    }

    @Test("An interrupt that comes before the wait is not lost")
    func early() {
        interrupts.interrupt(6)
        #expect(interrupts.isInterrupted(6))
        #expect(begin(6).isSet)
        #expect(!begin(8).isSet)
    }

    @Test("A handler that replaces another is called at once when the interrupt has come")
    func replaced() {
        let first = begin(2)
        interrupts.interrupt(2)
        #expect(first.isSet)
        #expect(begin(2).isSet)
        let third = begin(4)
        let fourth = begin(4)
        interrupts.interrupt(4)
        #expect(!third.isSet && fourth.isSet)
    }

    @Test("After its end a request has no handler")
    func ended() {
        let flag = begin(2)
        interrupts.end(2)
        interrupts.interrupt(2)
        #expect(!flag.isSet)
    }

    @Test("A request that waits in steps keeps its interrupt, and pushes out none of another's")
    func steps() {
        interrupts.interrupt(2)
        for _ in 0..<600 {
            #expect(begin(4).isSet == interrupts.isInterrupted(4))
            interrupts.interrupt(4)
            interrupts.end(4)
        }
        #expect(interrupts.isInterrupted(2) && interrupts.isInterrupted(4))
    }

    @Test("Of early interrupts the last 512 are kept, and no more")
    func bounded() {
        for unique in 0..<600 as Range<UInt64> { interrupts.interrupt(unique) }
        let kept = (0..<600 as Range<UInt64>).filter { interrupts.isInterrupted($0) }
        #expect(kept == Array(88..<600))
    }
}
