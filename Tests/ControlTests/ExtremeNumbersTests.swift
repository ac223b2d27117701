import HSMControl
import HSMCore
import Testing

/// Numbers that a daemon or a disk says, shown to people.
@Suite struct ExtremeNumbersTests {
    private static let numbers = [
        Int.min, Int.min + 1, -1, 0, 1, 1023, 1024, 1 << 31, 1 << 32, 1 << 62, .max - 1, .max,
    ]

    @Test func `sizes, shares and durations are shown whatever they are`() {
        for number in Self.numbers {
            #expect(!TextTable.size(number).isEmpty)
            #expect(!TextTable.duration(seconds: number).isEmpty)
            for whole in Self.numbers { #expect(TextTable.percent(number, of: whole).hasSuffix(" %")) }
        }
        #expect(TextTable.percent(.min, of: 1) == "0 %")
        #expect(TextTable.percent(.max - 1, of: .max) == "99 %")
    }

    @Test func `digits are a number, and nothing else is`() {
        for text in ["", "+1", "-1", " 1", "1 ", "1_0", "٣", "0x1", "9223372036854775808", "\u{0}"] {
            #expect(Int(digits: text) == nil, "\(text)")
        }
        #expect(Int(digits: "9223372036854775807") == .max && Int(digits: "007") == 7)
        #expect(UInt32(digits: "4294967296") == nil && UInt32(digits: "7777", radix: 8) == 0o7777)
    }
}
