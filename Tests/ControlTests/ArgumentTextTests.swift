import HSMSystem
import Testing

@Suite struct ArgumentTextTests {
    @Test func everyByteAloneSurvives() {
        for byte in UInt8.min...UInt8.max { roundTrip([byte]) }
    }

    @Test func everyPairOfBytesSurvives() {
        for first in UInt8.min...UInt8.max {
            for second in stride(from: 0, through: 255, by: 5) { roundTrip([first, UInt8(second)]) }
        }
    }

    @Test func theStandInScalarsThemselvesSurvive() {
        for value: UInt32 in [0x10_FF00, 0x10_FF7F, 0x10_FF80, 0x10_FFC3, 0x10_FFFF] {
            guard let scalar = Unicode.Scalar(value) else { continue }
            roundTrip(Array(String(scalar).utf8))
            roundTrip([0xFF] + Array(String(scalar).utf8) + [0x80])
        }
    }

    @Test func randomBytesSurvive() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let count = Int.random(in: 0...12, using: &generator)
            // Mostly lead and continuation bytes, so that truncated and overlong sequences come up.
            roundTrip((0..<count).map { _ in UInt8.random(in: 0x70...0xFF, using: &generator) })
        }
    }

    @Test func validTextStandsForItself() {
        let text = "/tmp/Grüße, 日本 🏔 e\u{301}"
        #expect(Array(ArgumentText.encode(Array(text.utf8)).utf8) == Array(text.utf8))
    }

    @Test func surrogatesAndOverlongFormsAreNotText() {
        for bytes: [UInt8] in [[0xED, 0xA0, 0x80], [0xC0, 0xAF], [0xF5, 0x80, 0x80, 0x80]] {
            roundTrip(bytes)
            #expect(BytePath(bytes).description.hasPrefix("\\x"))
        }
    }

    @Test func peopleSeeOneLineWithEscapes() {
        #expect(BytePath([0x61, 0xFF, 0x0A, 0x62]).description == "a\\xff\\x0ab")
    }

    @Test("Nothing that a terminal obeys is left in what people are shown, and it stays one line")
    func nothingIsObeyed() {
        let hostile = "a\u{1b}[2J\r\n\u{9b}31m\u{7f}\u{2028}\u{2029}\u{202e}\u{2066}b"
        let shown = ArgumentText.readable(hostile)
        let separators = #"\xe2\x80\xa8\xe2\x80\xa9"#
        #expect(shown == #"a\x1b[2J\x0d\x0a\xc2\x9b31m\x7f"# + separators + #"\xe2\x80\xae\xe2\x81\xa6b"#)
        #expect(ArgumentText.readable(shown) == shown)
        #expect(ArgumentText.readable("Grüße 👩‍🚀") == "Grüße 👩‍🚀")
    }

    private func roundTrip(_ bytes: [UInt8], _ location: SourceLocation = #_sourceLocation) {
        #expect(ArgumentText.decode(ArgumentText.encode(bytes)) == bytes, sourceLocation: location)
    }
}

@Suite struct BytePathTests {
    @Test func aPathContainsItselfAndWhatIsBelow() {
        #expect(BytePath("/a/b").contains(BytePath("/a/b")))
        #expect(BytePath("/a/b").contains(BytePath("/a/b/c")))
        #expect(!BytePath("/a/b").contains(BytePath("/a/bc")))
        #expect(!BytePath("/a/b").contains(BytePath("/a")))
        #expect(BytePath("/").contains(BytePath("/a")))
    }

    @Test func theMountTableUnescapesAndSkipsOptionalFields() {
        let text = """
            36 35 98:0 / /mnt\\040two\\134x rw,noatime shared:1 master:2 - fuse.passhsm /lower\\011t rw
            37 35 98:1 / /plain rw - ext4 /dev/sda1 rw
            garbage
            """
        let entries = MountTable.parse(Array(text.utf8))
        #expect(
            entries == [
                MountEntry(
                    id: 36, device: "98:0", mountpoint: BytePath("/mnt two\\x"), type: "fuse.passhsm",
                    source: BytePath("/lower\tt")),
                MountEntry(
                    id: 37, device: "98:1", mountpoint: BytePath("/plain"), type: "ext4", source: BytePath("/dev/sda1")),
            ])
    }
}
