"""A narrated film of a walk: a script made from its numbers, drawn and spoken.

    prompt         what is wanted, said in words
    walk_sources   walks of a translation, of a generation, of what a prompt asks for
    token_text     tokens in their text
    numbers        numbers with what each is of the walk
    script         scenes, lines, numbers and times: plain data
    narration      the script of a walk
    shapes, style  what is drawn, and where and in which colours: plain data
    layout         the picture of a script, made scene by scene in scenes
    fonts          letters
    drawing        frames of a picture (skia)
    voices         lines as sound (espeak-ng, piper), or silence
    sound          a sound track of even loudness
    encoding       frames and sound as MP4 or GIF (PyAV)
    subtitles      the lines as WebVTT, SubRip and a transcript
    verify         everything above, worked out again from the walk
    render         all of it, one after another

Drawing and speech render the script and know nothing of walks. What they need comes with the extra
`film` and loads only when a film is made.
"""
