-- What Markdown lacks and a textbook needs: numbers for chapters, sections, figures, tables, listings, equations and exercises,
-- references to them, boxes, solutions at the back, an index. All numbers are given here, so that PDF, HTML and EPUB agree.

local typst = FORMAT:match("typst") ~= nil
local stringify = pandoc.utils.stringify
local NAMES = {fig = "Figure", tbl = "Table", lst = "Listing", eq = "Equation", ex = "Exercise", sec = "Section"}
local BOXES = {lede = "", goals = "In this chapter you will", note = "Note", tip = "Tip", warning = "Warning"}

local chapters = {}                  -- the numbers of the chapters, in order; from their file names
local chapter = nil                  -- the present one
local counts = {}                    -- how many figures, tables ... each chapter has had
local labels = {}                    -- identifier -> {name = "Figure", number = "3.2"}
local solutions, solved = {}, {}     -- kept back for the end; solved[exercise] = true
local terms = {}                     -- index entries

local function raw(text) return pandoc.RawBlock("typst", text) end
local function rawinline(text) return pandoc.RawInline("typst", text) end
local function quoted(text) return '"' .. text:gsub("\\", "\\\\"):gsub('"', '\\"'):gsub("%s+", " ") .. '"' end

local function wrapped(open, blocks, close)        -- Typst code around blocks
  local out = pandoc.Blocks{raw(open)}
  out:extend(blocks)
  out:insert(raw(close or "]"))
  return out
end

local function number(kind, identifier)            -- the next number of its kind in this chapter
  local had = counts[chapter or 0] or {}
  counts[chapter or 0], had[kind] = had, (had[kind] or 0) + 1
  local text = (chapter and chapter .. "." or "") .. had[kind]
  if identifier ~= "" then labels[identifier] = {name = NAMES[kind], number = text} end
  return text
end

local function captioned(caption, kind, identifier) -- a caption that begins with "Figure 3.2."
  local name = pandoc.Span({pandoc.Str(NAMES[kind] .. " " .. number(kind, identifier) .. ".")}, {class = "caption-number"})
  if #caption.long == 0 then caption.long = {pandoc.Plain{}} end
  caption.long[1].content = pandoc.Inlines{name, pandoc.Space()} .. caption.long[1].content
  return caption
end

-- Mathematics: Typst source, with the TeX source as the alternative text that PDF/UA asks for.
local function typst_math(math)
  local text = pandoc.write(pandoc.Pandoc{pandoc.Plain{math}}, "typst"):gsub("%s+$", "")
  text = text:gsub('"(%a+)"%s+(\\?[%(%[])', 'op("%1")%2')                 -- a named operator stands close to its bracket
  if text:find("cases%(") then text = text:gsub(" & ", " & quad ") end    -- a gap between value and condition
  return text
end

local function equation(para)                      -- $$ ... $$ {#eq-name}
  local math, last = para.content[1], para.content[#para.content]
  if not math or math.t ~= "Math" or math.mathtype ~= "DisplayMath" then return nil end
  local identifier = last.t == "Str" and last.text:match("^{#(eq%-[%w-]+)}$") or ""
  local mark = identifier ~= "" and "(" .. number("eq", identifier) .. ")" or ""
  if typst then
    local label = identifier ~= "" and " <" .. identifier .. ">" or ""
    return raw("#display(" .. quoted(math.text) .. ", " .. quoted(mark) .. ", " .. typst_math(math) .. ")" .. label), false
  end
  local content = {math}
  if mark ~= "" then table.insert(content, pandoc.Span({pandoc.Str(mark)}, {class = "equation-number"})) end
  return pandoc.Div({pandoc.Para(content)}, pandoc.Attr(identifier, {"equation"})), false
end

-- Code: a cell, its output, and a numbered listing with the file and lines that it comes from.
local function code(block)
  local attributes, language = block.attributes, block.classes[1] or ""
  if language == "output" then
    if not typst then return nil end
    block.classes = {}
    return wrapped("#cell-output[", {block}), false
  end
  local shown = pandoc.CodeBlock(block.text, pandoc.Attr("", {language}))
  local file, lines = attributes.file, attributes.lines
  local out
  if typst then
    local _, breaks = block.text:gsub("\n", "")
    local arguments = "file: " .. quoted(file or "") .. ", lines: " .. quoted(lines or "")
    arguments = arguments .. ", joined: " .. (attributes.joined or "false") .. ", whole: " .. tostring(breaks < 16)
    out = wrapped("#cell(" .. arguments .. ")[", {shown})
  else
    out = pandoc.Blocks{shown}
    if file then out:insert(1, pandoc.Div({pandoc.Plain{pandoc.Code(file), pandoc.Str(", lines " .. lines)}}, {class = "source"})) end
  end
  if not block.identifier:match("^lst%-") then return out, false end
  local parsed = pandoc.read(attributes.caption or "", "markdown").blocks[1]
  local caption = captioned({long = pandoc.Blocks{pandoc.Plain(parsed and parsed.content or {})}}, "lst", block.identifier)
  if typst then
    local listing = wrapped("#listing(caption: [", caption.long, "])[")
    listing:extend(out)
    listing:insert(raw("] <" .. block.identifier .. ">"))
    return listing, false
  end
  return pandoc.Figure(out, caption, pandoc.Attr(block.identifier, {"listing"})), false
end

local function heading(header)
  if header.level > 2 or header.classes:includes("unnumbered") then return nil end
  if header.level == 2 and chapter == nil then header.classes:insert("unnumbered") return header, false end
  local text
  if header.level == 1 then
    local first = chapter == nil
    chapter = table.remove(chapters, 1)
    text = chapter
    labels[header.identifier] = {name = "Chapter", number = chapter}
    if typst then
      local out = pandoc.Blocks{raw("#chapter-number(" .. chapter .. ")"), header}
      if first then out:insert(1, raw("#show: main-matter")) end
      return out, false
    end
  else
    text = number("sec", header.identifier)
    if typst then return nil end
  end
  header.content = pandoc.Inlines{pandoc.Span({pandoc.Str(text)}, {class = "number"}), pandoc.Space()} .. header.content
  return header, false
end

local containers                     -- the first pass, below; a box applies it to what it holds

local function box(div)
  local kind = div.classes[1]
  if kind == "solution" then
    table.insert(solutions, {of = div.attributes.of, content = div.content, chapter = chapter})
    return {}, false
  elseif kind ~= "exercise" and not BOXES[kind] then
    return nil
  end
  if kind == "exercise" then
    local text = number("ex", div.identifier)
    if typst then
      local arguments = quoted(text) .. ", solved: " .. tostring(solved[div.identifier] or false) .. ", of: " .. quoted(div.identifier)
      return wrapped("#exercise(" .. arguments .. ")[", div.content:walk(containers), "] <" .. div.identifier .. ">"), false
    end
    local name = pandoc.Span({pandoc.Str("Exercise " .. text)}, {class = "exercise-number"})
    local content = pandoc.Inlines{name, pandoc.Space()} .. div.content[1].content
    if solved[div.identifier] then
      content:extend{pandoc.Space(), pandoc.Link({pandoc.Str("Solution")}, "#solution-" .. div.identifier, "", {class = "to-solution"})}
    end
    div.content[1].content = content
  else
    if typst then return wrapped("#box-of(" .. quoted(kind) .. ", " .. quoted(BOXES[kind]) .. ")[", div.content:walk(containers)), false end
    if kind == "goals" then div.content:insert(1, pandoc.Para{pandoc.Strong{pandoc.Str(BOXES.goals)}}) end
    div.classes:insert("box")
  end
  div.content = div.content:walk(containers)
  return div, false
end

-- First pass: from top to bottom, give numbers and build the containers.
containers = {
  traverse = "topdown",
  Header = heading, Para = equation, CodeBlock = code, Div = box,
  Figure = function(figure)
    if figure.classes:includes("listing") then return nil end
    figure.caption = captioned(figure.caption, "fig", figure.identifier)
    return figure
  end,
  Table = function(tbl)
    if #tbl.caption.long == 0 then return nil end
    tbl.caption = captioned(tbl.caption, "tbl", tbl.identifier)
    return tbl
  end,
}

-- Second pass: references (before citeproc takes them for citations), formulas, pictures, index entries.
local inlines = {
  Cite = function(cite)
    local identifier = cite.citations[1].id
    if not NAMES[identifier:match("^(%a+)%-") or ""] then return nil end
    local label = labels[identifier] or error("'" .. identifier .. "' is not a label of the book")
    if typst then return rawinline("#link(<" .. identifier .. ">)[" .. label.name .. "~" .. label.number .. "]") end
    return pandoc.Link({pandoc.Str(label.name .. "\u{a0}" .. label.number)}, "#" .. identifier, "", {class = "reference"})
  end,
  Math = function(math)
    if typst then return rawinline("#inline-math(" .. quoted(math.text) .. ", " .. typst_math(math) .. ");") end
  end,
  Image = function(image)
    local alternative = stringify(image.caption)
    assert(alternative ~= "", "the image " .. image.src .. " has no alternative text")
    if typst then
      return rawinline("#image(" .. quoted("/" .. image.src) .. ", width: " .. (image.attributes.width or "auto") .. ", alt: " .. quoted(alternative) .. ")")
    end
  end,
  Span = function(span)
    if span.classes:includes("caption-number") and typst then return rawinline("#caption-number[" .. stringify(span) .. "]") end
    if not span.classes:includes("idx") then return nil end
    local term = span.attributes.key or stringify(span)
    if typst then return pandoc.Inlines{rawinline("#idx(" .. quoted(term) .. ");")} .. span.content end
    local identifier = "index-" .. (#terms + 1)
    table.insert(terms, {term = term, identifier = identifier, chapter = chapter})
    return pandoc.Span(span.content, {id = identifier})
  end,
}

local function back_heading(text, identifier)
  return pandoc.Header(1, text, pandoc.Attr(identifier, {"unnumbered"}))
end

local function append_solutions(blocks)
  if #solutions == 0 then return end
  blocks:insert(back_heading("Solutions", "solutions"))
  for _, solution in ipairs(solutions) do
    local label = labels[solution.of] or error("a solution is given for '" .. tostring(solution.of) .. "', which does not exist")
    local identifier = "solution-" .. solution.of
    local name = "Solution " .. label.number
    chapter = solution.chapter
    local content = solution.content:walk(containers)
    if typst then
      blocks:extend(wrapped("#solution(" .. quoted(name) .. ", <" .. solution.of .. ">)[", content, "] <" .. identifier .. ">"))
    else
      if content[1].t ~= "Para" then content:insert(1, pandoc.Para{}) end
      local link = pandoc.Link({pandoc.Str(name)}, "#" .. solution.of, "", {class = "exercise-number"})
      content[1].content = pandoc.Inlines{link, pandoc.Space()} .. content[1].content
      blocks:insert(pandoc.Div(content, pandoc.Attr(identifier, {"solution"})))
    end
  end
end

local function append_index(blocks)
  if typst then blocks:insert(raw("#make-index()")) return end
  if #terms == 0 then return end
  local pages, names = {}, {}
  for _, entry in ipairs(terms) do
    if not pages[entry.term] then pages[entry.term] = {} table.insert(names, entry.term) end
    table.insert(pages[entry.term], entry.identifier)
  end
  table.sort(names, function(a, b) return a:lower() < b:lower() end)
  local items = {}
  for _, term in ipairs(names) do
    local item = pandoc.Inlines{}
    for i, identifier in ipairs(pages[term]) do
      if i > 1 then item:extend{pandoc.Str(","), pandoc.Space()} end
      item:insert(pandoc.Link({pandoc.Str(i == 1 and term or tostring(i))}, "#" .. identifier))
    end
    table.insert(items, {pandoc.Plain(item)})
  end
  blocks:insert(back_heading("Index", "index"))
  blocks:insert(pandoc.BulletList(items))
end

function Pandoc(doc)
  for _, value in ipairs(doc.meta.numbers or {}) do table.insert(chapters, stringify(value)) end
  doc.blocks:walk{Div = function(div) if div.classes:includes("solution") then solved[div.attributes.of or ""] = true end end}
  local blocks = doc.blocks:walk(containers)
  append_solutions(blocks)
  blocks = blocks:walk(inlines)
  blocks:insert(back_heading("References", "references"))
  blocks:insert(pandoc.Div({}, pandoc.Attr("refs")))
  append_index(blocks)
  doc.blocks = blocks
  return doc
end
